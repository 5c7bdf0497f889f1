import type { Command } from 'commander';
import type { KeyStatus } from '../../admin/schemas.js';
import { SealbdError } from '../../base/errors.js';
import { clientFor, type ListingOptions } from '../context.js';
import { EXIT } from '../exit-codes.js';
import { print, printJson, printTable } from '../output.js';

export const KEY_HEAD = [
  'volume',
  'key',
  'state',
  'reason',
  'last check',
  'next check',
  'grace ends',
  'DEKs',
  'rotation',
];

interface StatusOptions extends ListingOptions {
  readonly check?: boolean;
}

/** Exits 5 where a key is damaged. */
export async function keyStatus(
  name: string | undefined,
  options: StatusOptions,
  command: Command,
): Promise<void> {
  const client = clientFor(command);
  if (options.check && name === undefined)
    throw new SealbdError('USAGE', '--check needs the name of a volume');
  const keys = await (options.check ? client.checkVolumeKey(name!) : client.keyStatus(name));
  if (keys.some((key) => key.state === 'damaged')) process.exitCode = EXIT.integrity;
  if (options.json) return printJson(keys);
  if (keys.length === 0) return print('no volume with a key');
  printTable(KEY_HEAD, keyRows(keys));
}

export function keyRows(keys: readonly KeyStatus[]): string[][] {
  return keys.map((key) => [
    key.volume,
    key.keyUri,
    key.state,
    key.reason ?? '-',
    key.lastCheck ?? '-',
    key.nextCheck ?? '-',
    key.graceEndsAt ?? '-',
    key.deks.map((dek) => `${dek.id} ${dek.state}${dek.exposed ? ' exposed' : ''}`).join(', '),
    rotationText(key.rotation),
  ]);
}

function rotationText(rotation: KeyStatus['rotation']): string {
  if (rotation === null) return '-';
  const { phase, doneBytes, totalBytes } = rotation;
  return totalBytes === 0 ? phase : `${phase} ${Math.floor((100 * doneBytes) / totalBytes)}%`;
}
