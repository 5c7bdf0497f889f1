import type { Command } from 'commander';
import type { BackupInfo } from '../../backup/info.js';
import { describeOffline } from '../../backup/offline.js';
import { dataDirectory } from '../../base/data-directory.js';
import { formatSize } from '../../base/units.js';
import { dataOption, type ListingOptions } from '../context.js';
import { EXIT } from '../exit-codes.js';
import { print, printFields, printJson, printTable } from '../output.js';

/** Exits 5 where the chain is not whole, or a key does not open a DEK of it; else 4 where a key can't be used. */
export async function backupInfo(path: string, options: ListingOptions, command: Command): Promise<void> {
  const info = await describeOffline(path, dataDirectory(dataOption(command), process.env, process.cwd()));
  if (info.problem !== null || info.keys.some((key) => key.damaged)) process.exitCode = EXIT.integrity;
  else if (!info.keyUsable) process.exitCode = EXIT.keyUnavailable;
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
  if (info.unproven !== null) print(`WARNING: ${info.unproven}`);
  for (const { keyUri, resolvedKeyId, deks, usable, reason } of info.keys) {
    const state = usable ? 'can be used now' : `can NOT be used now: ${reason}`;
    print(`needs ${keyUri} (${resolvedKeyId}) for DEK ${deks.join(', ')}: ${state}`);
  }
}
