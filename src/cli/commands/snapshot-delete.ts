import type { Command } from 'commander';
import { clientFor } from '../context.js';
import { print } from '../output.js';

export async function snapshotDelete(
  name: string,
  snapshot: string,
  _options: unknown,
  command: Command,
): Promise<void> {
  await clientFor(command).deleteSnapshot(name, snapshot);
  print(`${name}@${snapshot}: deleted`);
}
