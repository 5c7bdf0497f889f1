import type { Command } from 'commander';
import { clientFor, type ListingOptions } from '../context.js';
import { print, printJson } from '../output.js';
import { followRewrite, reportRewrite } from '../rewrite-job.js';

interface RotateOptions extends ListingOptions {
  readonly reencrypt?: boolean;
  readonly detach?: boolean;
}

export async function keyRotate(name: string, options: RotateOptions, command: Command): Promise<void> {
  const client = clientFor(command);
  const rotated = await client.rotateKey(name, options.reencrypt ?? false);
  const say = (text: string): void => (options.json ? undefined : print(text));
  say(`${name}: new data is under DEK ${rotated.dekId} from now on, wrapped by ${rotated.resolvedKeyId}`);
  if (rotated.job === null) {
    if (options.json) return printJson(rotated);
    return print(`old data is still under older DEKs; "sealbd key rotate ${name} --reencrypt" rewrites it`);
  }
  const job = await followRewrite(client, rotated.job, options.detach ?? false);
  if (options.json) return printJson({ ...rotated, job });
  reportRewrite(job, 'the older DEKs are destroyed');
}
