import type { Command } from 'commander';
import { formatSize } from '../../base/units.js';
import { clientFor, type ListingOptions } from '../context.js';
import { print, printFields, printJson, printTable } from '../output.js';
import { JOB_HEAD, jobRows } from './job-list.js';
import { KEY_HEAD, keyRows } from './key-status.js';
import { VOLUME_HEAD, volumeRows } from './volume-list.js';

export async function status(options: ListingOptions, command: Command): Promise<void> {
  const daemon = await clientFor(command).status();
  if (options.json) return printJson(daemon);
  printFields({
    version: daemon.version,
    pid: daemon.pid,
    'started at': daemon.startedAt,
    data: daemon.dataDirectory,
    listen: daemon.listen.join(', '),
    admin: daemon.admin.join(', '),
    tls: daemon.tls,
    'key memory': daemon.keysLocked ? 'locked' : 'NOT LOCKED',
    mapped: formatSize(daemon.volumes.reduce((sum, volume) => sum + (volume.mappedBytes ?? 0), 0)),
  });
  section('Volumes', VOLUME_HEAD, volumeRows(daemon.volumes));
  section(
    'Problems',
    ['volume', 'reason'],
    daemon.volumes.flatMap((volume) => (volume.reason === null ? [] : [[volume.name, volume.reason]])),
  );
  section('Keys', KEY_HEAD, keyRows(daemon.keys));
  section(
    'Clients',
    ['address', 'volume', 'identity'],
    daemon.clients.map((client) => [client.address, client.volume, client.identity ?? '-']),
  );
  section('Jobs', JOB_HEAD, jobRows(daemon.jobs));
}

function section(title: string, head: readonly string[], rows: string[][]): void {
  print('');
  print(rows.length === 0 ? `${title}: none` : `${title}:`);
  if (rows.length > 0) printTable(head, rows);
}
