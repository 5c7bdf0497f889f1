import type { Command } from 'commander';
import { clientFor, type ListingOptions } from '../context.js';
import { print, printJson } from '../output.js';

export async function snapshotCreate(
  name: string,
  snapshot: string,
  options: ListingOptions,
  command: Command,
): Promise<void> {
  const made = await clientFor(command).createSnapshot(name, snapshot);
  if (options.json) return printJson(made);
  print(`${made.exportName}: made at ${made.createdAt}`);
}
