import type { Command } from 'commander';
import { clientFor } from '../context.js';
import { note, print } from '../output.js';

export async function keySet(
  name: string,
  uri: string,
  options: { readonly reencrypt?: boolean },
  command: Command,
): Promise<void> {
  const change = await clientFor(command).setKey(name, uri, options.reencrypt ?? false);
  const { from, keyUri, resolvedKeyId, deks } = change;
  const count = `${deks.length} ${deks.length === 1 ? 'DEK' : 'DEKs'}`;
  if (change.moved) {
    print(
      `${name}: ${count} moved from ${from.keyUri} (${from.resolvedKeyId}) to ${keyUri} (${resolvedKeyId})`,
    );
  } else {
    print(`${name}: was under ${keyUri} (${resolvedKeyId}) already; ${count} rewrapped`);
  }
  if (change.exposed && !keyUri.startsWith('local:') && options.reencrypt !== true) {
    note(
      `warning: a DEK of ${name} was once under a local: key and stays exposed: whoever has a copy of the directory from then opens it. "sealbd key rotate ${name} --reencrypt" ends that`,
    );
  }
}
