import type { Command } from 'commander';
import { clientFor } from '../context.js';
import { print } from '../output.js';

export async function snapshotRollback(
  name: string,
  snapshot: string,
  _options: unknown,
  command: Command,
): Promise<void> {
  await clientFor(command).rollBack(name, snapshot);
  print(`${name}: rolled back to ${snapshot}`);
}
