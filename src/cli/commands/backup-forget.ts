import { resolve } from 'node:path';
import type { Command } from 'commander';
import { SealbdError } from '../../base/errors.js';
import { clientFor, type ListingOptions } from '../context.js';
import { print, printJson } from '../output.js';

interface ForgetOptions extends ListingOptions {
  readonly dropped?: boolean;
  readonly force?: boolean;
}

export async function backupForget(
  dest: string | undefined,
  { dropped = false, force = false, json }: ForgetOptions,
  command: Command,
): Promise<void> {
  if ((dest === undefined) !== dropped)
    throw new SealbdError('USAGE', 'expected either DEST, the path of a backup, or --dropped');
  const path = dest === undefined ? {} : { path: resolve(dest) };
  const forgotten = await clientFor(command).forgetBackups({ ...path, dropped, force });
  if (json) return printJson(forgotten);
  for (const { path, volume, createdAt } of forgotten.backups)
    print(`${path}: the backup of ${volume} of ${createdAt} is forgotten`);
  if (dropped) print(`${forgotten.dropped} that were dropped from the list are forgotten`);
}
