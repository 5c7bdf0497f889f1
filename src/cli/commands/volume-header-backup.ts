import type { Command } from 'commander';
import { clientFor } from '../context.js';
import { refuseExisting, writeOutput } from '../files.js';
import { print } from '../output.js';

export async function volumeHeaderBackup(
  name: string,
  path: string,
  _options: object,
  command: Command,
): Promise<void> {
  await refuseExisting(path);
  await writeOutput(path, await clientFor(command).backUpHeader(name));
  print(`${name}: header written to ${path}`);
}
