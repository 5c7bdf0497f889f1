import type { Command } from 'commander';
import { clientFor } from '../context.js';
import { readInput } from '../files.js';
import { print } from '../output.js';

export async function volumeHeaderRestore(
  name: string,
  path: string,
  options: { readonly force?: boolean },
  command: Command,
): Promise<void> {
  const file = await readInput(path);
  await clientFor(command).restoreHeader(name, file, options.force ?? false);
  print(`${name}: header restored; "sealbd volume start ${name}" opens it`);
}
