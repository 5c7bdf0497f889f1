import type { Command } from 'commander';
import { SealbdError } from '../../base/errors.js';
import { clientFor } from '../context.js';
import { print } from '../output.js';

export async function volumeDelete(
  name: string,
  options: { readonly yes?: boolean },
  command: Command,
): Promise<void> {
  if (options.yes !== true) {
    throw new SealbdError(
      'USAGE',
      `deleting "${name}" destroys its keys and its data for good; --yes confirms it`,
    );
  }
  await clientFor(command).deleteVolume(name);
  print(`${name}: deleted`);
}
