import type { Command } from 'commander';
import { clientFor } from '../context.js';
import { note, print } from '../output.js';
import { followRewrite, reportRewrite } from '../rewrite-job.js';

export async function keySet(
  name: string,
  uri: string,
  options: { readonly reencrypt?: boolean; readonly detach?: boolean },
  command: Command,
): Promise<void> {
  const client = clientFor(command);
  const change = await client.setKey(name, uri, options.reencrypt ?? false);
  const { from, keyUri, resolvedKeyId, deks } = change;
  const count = `${deks.length} ${deks.length === 1 ? 'DEK' : 'DEKs'}`;
  if (change.moved) {
    print(
      `${name}: ${count} moved from ${from.keyUri} (${from.resolvedKeyId}) to ${keyUri} (${resolvedKeyId})`,
    );
  } else {
    print(`${name}: was under ${keyUri} (${resolvedKeyId}) already; ${count} rewrapped`);
  }
  if (change.job !== null) {
    const job = await followRewrite(client, change.job, options.detach ?? false);
    reportRewrite(job, 'the older DEKs are destroyed');
    return;
  }
  if (change.exposed && !keyUri.startsWith('local:')) {
    note(
      `warning: a DEK of ${name} was once under a local: key and stays exposed: whoever has a copy of the directory from then opens it. "sealbd key rotate ${name} --reencrypt" ends that`,
    );
  }
}
