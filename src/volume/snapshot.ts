/** A durable snapshot: what the root says of it, and what it holds. */
import { messageOf, SealbdError } from '../base/errors.js';
import { BLOCK_BYTES, SLOT_BYTES } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { Segment } from '../segment/segment.js';
import type { ChangeLog } from './change-log.js';
import type { SnapshotEntry } from './checkpoint-root.js';
import type { SegmentChange } from './map-runs.js';
import { isUnreadable, type RunFilesOptions, readTable } from './run-files.js';
import type { Holds, SegmentTable } from './segment-table.js';

export class Snapshot {
  /** As the root has it; another one after its blocks were moved or its files written anew. */
  entry: SnapshotEntry;
  /** Empty where it is damaged. */
  holds: Holds;
  /** Why it can't be used, where that is so: then nobody knows which segments it needs. */
  readonly problem: string | undefined;
  /** Why its map can't be read, where that was found: its blocks can't be moved. */
  unreadable: string | undefined;
  /** Has a map of it in memory, perhaps, which must follow where its blocks are moved. */
  reader: { follow(moved: ChangeLog): Promise<void> } | undefined;

  constructor(entry: SnapshotEntry, holds: Holds, problem?: string) {
    this.entry = entry;
    this.holds = holds;
    this.problem = problem;
  }

  get name(): string {
    return this.entry.name;
  }

  /** It can't be rewritten until it is deleted. */
  get isStuck(): boolean {
    return this.problem !== undefined || this.unreadable !== undefined;
  }

  get info(): SnapshotInfo {
    let uniqueBytes = 0;
    for (const [segment, blocks] of this.holds)
      if (segment.live === 0 && segment.held === blocks) uniqueBytes += segment.slots * SLOT_BYTES;
    const { name, createdAtMs, sizeBytes, mappedBlocks } = this.entry;
    const mappedBytes = mappedBlocks * BLOCK_BYTES;
    const problem = this.problem ?? this.unreadable;
    return { name, createdAtMs, sizeBytes, mappedBytes, uniqueBytes, problem };
  }
}

export interface SnapshotInfo {
  readonly name: string;
  /** Unix ms. */
  readonly createdAtMs: number;
  /** Of the device, at its cut. */
  readonly sizeBytes: number;
  readonly mappedBytes: number;
  /** Stored in segments that nothing else needs: what deleting it gives back at once. */
  readonly uniqueBytes: number;
  /** Why it can't be used, where that is so. */
  readonly problem: string | undefined;
}

/** Reads the tables of a root's snapshots, and counts what they hold. One that is damaged keeps all that it may need. */
export async function loadSnapshots(
  files: RunFilesOptions,
  entries: readonly SnapshotEntry[],
  table: SegmentTable,
  log: Logger,
): Promise<Snapshot[]> {
  const snapshots: Snapshot[] = [];
  for (const entry of entries) {
    try {
      const holds = await readHolds(files, entry, table);
      table.hold(holds);
      snapshots.push(new Snapshot(entry, holds));
    } catch (error) {
      if (!isUnreadable(error)) throw error;
      const reason = messageOf(error);
      log.error({ snapshot: entry.name, reason }, 'a snapshot is damaged; what it may need is kept');
      table.heldBelowId = Math.max(table.heldBelowId, entry.segmentIdEnd);
      snapshots.push(new Snapshot(entry, new Map(), reason));
    }
  }
  return snapshots;
}

async function readHolds(
  files: RunFilesOptions,
  { name, mappedBlocks, table: run }: SnapshotEntry,
  table: SegmentTable,
): Promise<Holds> {
  const holds = new Map<Segment, number>();
  let blocks = 0;
  for (const { index, segmentId, slots } of await readTable(files, run)) {
    const segment = table.byIndex(index);
    if (segment?.id !== segmentId)
      throw new SealbdError('INTEGRITY', `snapshot "${name}" names segment ${segmentId}, which is missing`);
    holds.set(segment, slots);
    blocks += slots;
  }
  if (blocks !== mappedBlocks)
    throw new SealbdError('INTEGRITY', `snapshot "${name}" has ${blocks} blocks instead of ${mappedBlocks}`);
  return holds;
}

/** What its table says: of each segment how many blocks it holds. */
export function tableOf(holds: Holds): SegmentChange[] {
  return [...holds].map(([segment, blocks]) => ({ index: segment.index, segment, slots: blocks }));
}
