import type { Command } from 'commander';
import type { VolumeInfo } from '../../admin/schemas.js';
import { formatSize } from '../../base/units.js';
import { clientFor, type ListingOptions } from '../context.js';
import { printFields, printJson } from '../output.js';

export async function volumeInfo(name: string, options: ListingOptions, command: Command): Promise<void> {
  const volume = await clientFor(command).volumeInfo(name);
  if (options.json) return printJson(volume);
  printVolume(volume);
}

export function printVolume(volume: VolumeInfo): void {
  const size = (bytes: number | null) => (bytes === null ? null : `${formatSize(bytes)} (${bytes} bytes)`);
  printFields({
    name: volume.name,
    uuid: volume.uuid,
    size: size(volume.sizeBytes),
    'block size': volume.blockSize,
    cipher: volume.cipher,
    state: volume.state,
    reason: volume.reason,
    key: volume.keyUri,
    mapped: size(volume.mappedBytes),
    stored: size(volume.storedBytes),
    segments: volume.segments,
    snapshots: volume.snapshots,
    'kept by snapshots alone': size(volume.snapshotBytes),
    clients: volume.clients,
    'created at': volume.createdAt,
  });
}
