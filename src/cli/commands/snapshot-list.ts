import type { Command } from 'commander';
import { formatSize } from '../../base/units.js';
import { clientFor, type ListingOptions } from '../context.js';
import { print, printJson, printTable } from '../output.js';

const HEAD = ['name', 'created at', 'size', 'mapped', 'unique', 'clients', 'problem'];

export async function snapshotList(name: string, options: ListingOptions, command: Command): Promise<void> {
  const snapshots = await clientFor(command).listSnapshots(name);
  if (options.json) return printJson(snapshots);
  if (snapshots.length === 0) return print('no snapshots');
  printTable(
    HEAD,
    snapshots.map((snapshot) => [
      snapshot.name,
      snapshot.createdAt,
      formatSize(snapshot.sizeBytes),
      formatSize(snapshot.mappedBytes),
      formatSize(snapshot.uniqueBytes),
      String(snapshot.clients),
      snapshot.problem ?? '-',
    ]),
  );
}
