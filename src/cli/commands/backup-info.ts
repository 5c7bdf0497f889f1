import type { Command } from 'commander';
import type { BackupInfo } from '../../backup/info.js';
import { describeOffline } from '../../backup/offline.js';
import { dataDirectory } from '../../base/data-directory.js';
import { formatSize } from '../../base/units.js';
import { dataOption, type ListingOptions } from '../context.js';
import { print, printFields, printJson, printTable } from '../output.js';

export async function backupInfo(path: string, options: ListingOptions, command: Command): Promise<void> {
  const info = await describeOffline(path, dataDirectory(dataOption(command), process.env, process.cwd()));
  if (options.json) return printJson(info);
  show(info);
}

function show(info: BackupInfo): void {
  printFields({
    backup: info.uuid,
    volume: info.volume,
    'volume uuid': info.volumeUuid,
    made: info.createdAt,
    kind: info.kind,
    cipher: info.cipher,
    size: formatSize(info.sizeBytes),
    mapped: formatSize(info.mappedBytes),
    stored: formatSize(info.storedBytes),
    sequence: info.sequence,
  });
  if (info.chain.length > 1) {
    const rows = info.chain.map(({ path, uuid, createdAt, storedBytes }) => [
      path,
      uuid,
      createdAt,
      formatSize(storedBytes),
    ]);
    printTable(['chain', 'backup', 'made', 'stored'], rows);
  }
  if (info.problem !== null) print(`problem: ${info.problem}`);
  for (const { keyUri, resolvedKeyId, deks, usable, reason } of info.keys) {
    const state = usable ? 'can be used now' : `can NOT be used now: ${reason}`;
    print(`needs ${keyUri} (${resolvedKeyId}) for DEK ${deks.join(', ')}: ${state}`);
  }
}
