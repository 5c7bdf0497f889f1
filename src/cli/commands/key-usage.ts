import type { Command } from 'commander';
import type { KeyUsage } from '../../admin/schemas.js';
import { formatSize } from '../../base/units.js';
import { clientFor, type ListingOptions } from '../context.js';
import { print, printJson, printTable } from '../output.js';

const HEAD = ['key', 'resolved', 'volume', 'DEK', 'version', 'segments', 'stored', 'safe to delete'];

export async function keyUsage(
  uri: string | undefined,
  options: ListingOptions,
  command: Command,
): Promise<void> {
  const keys = await clientFor(command).keyUsage(uri);
  if (options.json) return printJson(keys);
  if (keys.length === 0) return print('no volume or backup depends on a key');
  printTable(HEAD, keys.flatMap(rows));
  for (const { backups, keyUri } of keys)
    for (const backup of backups) {
      const { path, volume, deks } = backup;
      print(`${keyUri}: backup of ${volume} at ${path}, DEK ${deks.join(', ')}${whereabouts(backup)}`);
    }
  const caveats = new Set(keys.flatMap((key) => key.caveats));
  for (const caveat of caveats) print(`note: ${caveat}`);
}

function whereabouts({ present, doubt }: KeyUsage['backups'][number]): string {
  if (present) return '';
  return doubt === null ? ' (not there now)' : ' (not known whether it is there)';
}

function rows(key: KeyUsage): string[][] {
  const named = [key.keyUri, key.resolvedKeyId ?? '-'];
  const safe = key.safeToDelete ? 'yes, see the notes' : 'no';
  if (key.volumes.length === 0) return [[...named, '-', '-', '-', '-', '-', safe]];
  return key.volumes.flatMap(({ volume, deks }) => {
    return deks.map((dek) => [
      ...named,
      volume,
      `${dek.id} ${dek.state}${dek.exposed ? ' exposed' : ''}${shared(dek.sharedWith)}`,
      dek.keyVersion === '' ? '-' : dek.keyVersion,
      dek.segments === null ? '-' : String(dek.segments),
      dek.bytes === null ? '-' : formatSize(dek.bytes),
      safe,
    ]);
  });
}

function shared(volumes: readonly string[]): string {
  return volumes.length === 0 ? '' : `, shared with ${volumes.join(', ')}`;
}
