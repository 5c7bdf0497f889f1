import type { Command } from 'commander';
import type { VolumeInfo } from '../../admin/schemas.js';
import { formatSize } from '../../base/units.js';
import { clientFor, type ListingOptions } from '../context.js';
import { print, printJson, printTable } from '../output.js';

export const VOLUME_HEAD = ['name', 'size', 'mapped', 'stored', 'cipher', 'key', 'state', 'clients'];

export async function volumeList(options: ListingOptions, command: Command): Promise<void> {
  const volumes = await clientFor(command).listVolumes();
  if (options.json) return printJson(volumes);
  if (volumes.length === 0) return print('no volumes');
  printTable(VOLUME_HEAD, volumeRows(volumes));
}

export function volumeRows(volumes: readonly VolumeInfo[]): string[][] {
  return volumes.map((volume) => [
    volume.name,
    size(volume.sizeBytes),
    size(volume.mappedBytes),
    size(volume.storedBytes),
    volume.cipher ?? '-',
    volume.keyUri ?? '-',
    volume.state,
    String(volume.clients),
  ]);
}

function size(bytes: number | null): string {
  return bytes === null ? '-' : formatSize(bytes);
}
