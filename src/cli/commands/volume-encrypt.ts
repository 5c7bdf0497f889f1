import type { Command } from 'commander';
import { clientFor, type ListingOptions } from '../context.js';
import { note, print, printJson } from '../output.js';
import { followRewrite, reportRewrite } from '../rewrite-job.js';

interface EncryptOptions extends ListingOptions {
  readonly key: string;
  readonly cipher?: string;
  readonly detach?: boolean;
}

/** What no program can take back that only sees the volume's files. */
const OUT_OF_REACH =
  'not reached by this: backups, snapshots and copies of the directory made before; blocks that the file system, ' +
  'an SSD or a storage array moved or kept on its own (media remanence); what clients wrote elsewhere';

export async function volumeEncrypt(name: string, options: EncryptOptions, command: Command): Promise<void> {
  const client = clientFor(command);
  const rotated = await client.encryptVolume(name, options.key, options.cipher);
  if (!options.json)
    print(
      `${name}: new data is encrypted from now on, under DEK ${rotated.dekId}, wrapped by ${rotated.resolvedKeyId}`,
    );
  const job = await followRewrite(client, rotated.job!, options.detach ?? false);
  if (options.json) printJson({ ...rotated, job });
  else reportRewrite(job, 'the plaintext in its directory is overwritten and gone');
  note(OUT_OF_REACH);
}
