import { errnoOf, messageOf, SealbdError } from '../base/errors.js';
import { SNAPSHOT_RUNS_MAX } from '../base/limits.js';
import { addon } from '../native/addon.js';
import { SALT_BYTES } from '../segment/format.js';
import type { Segment } from '../segment/segment.js';
import { isDiskFull } from '../store/disk-full.js';
import type { StoreFile } from '../store/store.js';
import type { ChangeLog } from './change-log.js';
import { type CheckpointRoot, RUNS_MAX, type RunRef } from './checkpoint-root.js';
import { mapFileName, type SegmentEntry } from './map-file/codec.js';
import { mergeAll, mergeAllSegments } from './map-file/merge.js';
import { readMapFile } from './map-file/reader.js';
import type { RunSource } from './map-file/run-batch.js';
import { runsToMerge } from './map-file/runs-to-merge.js';
import { type MapFileTotals, type SegmentSource, writeMapFile } from './map-file/writer.js';
import { type RunFilesOptions, segmentIndexes, withFile, withReaders } from './run-files.js';
import type { SparePool } from './spare-pool.js';
import type { VolumeKeys } from './volume-keys.js';

/** What a checkpoint says of one index of the segment table: a segment with so many slots, or nothing any more. */
export interface SegmentChange {
  readonly index: number;
  readonly segment: Segment | undefined;
  readonly slots: number;
}

/** Rough sizes, for the merge policy alone. */
const MAP_ENTRY_BYTES = 10;
const SEGMENT_ENTRY_BYTES = 72;

/** Enough for a map file of so many changes of single blocks, and of the segments that they touched. */
export function mapFileBytesMax(changes: number): number {
  return changes * (MAP_ENTRY_BYTES + 2) + MAP_FILE_SPARE_BYTES;
}

const MAP_FILE_SPARE_BYTES = 64 * 1024;

const CHECKPOINTS_TO_WHOLE = 16;

/** Where a map file is made. */
type Place = 'new file' | 'reserve';

/**
 * The map on disk, and the maps of snapshots: sorted runs in map files, oldest first. Adds runs, merges them, removes what
 * nothing names any more.
 */
export class MapRuns {
  readonly #options: RunFilesOptions & { readonly keys: VolumeKeys; readonly spares: SparePool };
  #nextFileId: number;
  /** Map files that exist: those that a root names, and those that were made since. */
  readonly #files: Set<number>;
  bytesWritten = 0;
  /** Checkpoints until all of the map is tried again. */
  #wholeIn = 0;

  constructor(
    options: RunFilesOptions & {
      readonly keys: VolumeKeys;
      readonly spares: SparePool;
      readonly root: CheckpointRoot;
      /** Map files that this root names, or an older copy that the next checkpoint replaces. */
      readonly mapFiles: ReadonlySet<number>;
    },
  ) {
    this.#options = options;
    this.#nextFileId = options.root.nextMapFileId;
    this.#files = new Set(options.mapFiles);
  }

  get nextFileId(): number {
    return this.#nextFileId;
  }

  /**
   * Makes the changes durable as one more run, merged with as many of the newest runs as keeps their number
   * logarithmic. Returns the runs that a root may name from now on; those given stay as they are.
   */
  async extend(
    runs: readonly RunRef[],
    logs: readonly ChangeLog[],
    segments: readonly SegmentChange[],
  ): Promise<readonly RunRef[]> {
    const changes = logs.reduce((sum, log) => sum + log.changes, 0);
    const foreign = runs.some((run) => run.dekId !== this.#options.keys.sealing.id);
    if (changes === 0 && segments.length === 0 && !foreign) return runs;
    const bytes = changes * MAP_ENTRY_BYTES + segments.length * SEGMENT_ENTRY_BYTES;
    const entries = sortedEntries(segments);
    // After a rotation all of the map is written anew, so that no run is left that a retired DEK can authenticate. A disk
    // that has no room for all of it is asked again later.
    const due = Math.max(0, runsToMerge([...runs.map((run) => run.bytes), bytes]) - 1);
    const whole = foreign && this.#wholeIn-- <= 0;
    try {
      return await this.#append(runs, whole ? runs.length : due, logs, entries, 'new file');
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      if (whole) this.#wholeIn = CHECKPOINTS_TO_WHOLE;
      // On a full disk: as many runs as a file of the reserve can take, so that the next checkpoint gets this file back.
      return await this.#append(runs, this.#fitting(runs, bytes), logs, entries, 'reserve');
    }
  }

  /**
   * The same for the runs of a snapshot, which change where its blocks were moved; with `anew` all of them are written anew where
   * one is under another DEK. It takes nothing of the reserve: that is the live map's.
   */
  async extendSnapshot(runs: readonly RunRef[], log: ChangeLog, anew: boolean): Promise<readonly RunRef[]> {
    const foreign = anew && runs.some((run) => run.dekId !== this.#options.keys.sealing.id);
    if (log.changes === 0 && !foreign) return runs;
    const bytes = log.changes * MAP_ENTRY_BYTES;
    const due = Math.max(0, runsToMerge([...runs.map((run) => run.bytes), bytes]) - 1);
    const whole = foreign || runs.length - due >= SNAPSHOT_RUNS_MAX;
    return this.#append(runs, whole ? runs.length : due, [log], [], 'new file');
  }

  /** Makes so few runs of them that a snapshot can have them. */
  async forSnapshot(runs: readonly RunRef[]): Promise<readonly RunRef[]> {
    return runs.length <= SNAPSHOT_RUNS_MAX ? runs : this.#append(runs, runs.length, [], [], 'new file');
  }

  /**
   * The runs of a snapshot as those of the volume: one more says what the segment table is now, whatever theirs say. `segments`
   * are all that there are.
   */
  async restart(runs: readonly RunRef[], segments: readonly SegmentChange[]): Promise<readonly RunRef[]> {
    const present = new Set(segments.map(({ index }) => index));
    const gone = (await segmentIndexes(this.#options, runs)).filter((index) => !present.has(index));
    const changes = [...segments, ...gone.map((index) => ({ index, segment: undefined, slots: 0 }))];
    return this.#append(runs, 0, [], sortedEntries(changes), 'new file');
  }

  /** A map file that has segment entries alone, each index once. */
  writeTable(segments: readonly SegmentChange[]): Promise<RunRef> {
    return this.#write([], [], sortedEntries(segments), true, 'new file');
  }

  /** How many of the newest runs fit in a map file of the reserve together with `bytes` more. */
  #fitting(runs: readonly RunRef[], bytes: number): number {
    let total = bytes;
    let count = 0;
    while (count < runs.length) {
      total += runs[runs.length - 1 - count].bytes;
      if (total > this.#options.spares.mapBytes) break;
      count++;
    }
    return count;
  }

  async #append(
    runs: readonly RunRef[],
    merged: number,
    logs: readonly ChangeLog[],
    entries: readonly SegmentEntry[],
    place: Place,
  ): Promise<readonly RunRef[]> {
    const kept = runs.slice(0, runs.length - merged);
    if (kept.length >= RUNS_MAX)
      throw new SealbdError('ENOSPC', `${RUNS_MAX} map files, and no room to merge them`);
    return [...kept, await this.#write(runs.slice(kept.length), logs, entries, kept.length === 0, place)];
  }

  async #write(
    older: readonly RunRef[],
    logs: readonly ChangeLog[],
    segments: readonly SegmentEntry[],
    first: boolean,
    place: Place,
  ): Promise<RunRef> {
    const { keys, uuid } = this.#options;
    const { id: dekId, key } = keys.sealing;
    const salt = new Uint8Array(SALT_BYTES);
    addon.randomFill(salt);
    const identity = { dekId, uuid, fileId: this.#nextFileId++, salt, key };
    this.#files.add(identity.fileId);
    const write = (file: StoreFile): Promise<MapFileTotals> =>
      withReaders(this.#options, older, first, (readers) => {
        const options = { dropTombstones: first };
        const runSources: RunSource[] = logs.map((log) => log.sortedRuns());
        const segmentSources: SegmentSource[] = readers.map((reader) => reader.segments());
        return writeMapFile(
          file,
          identity,
          mergeAll([...readers.map((reader) => reader.runs()), ...runSources], options),
          mergeAllSegments([...segmentSources, segments], options),
        );
      });
    const totals = await this.#toFile(mapFileName(identity.fileId), write, place, dekId);
    this.bytesWritten += totals.bytes;
    const { fileId } = identity;
    return {
      fileId,
      dekId,
      salt,
      bytes: totals.bytes,
      mapEntries: totals.mapEntries,
      segmentEntries: totals.segmentEntries,
    };
  }

  /** Writes a durable file. Nothing is left of one that failed. */
  async #toFile(
    name: string,
    write: (file: StoreFile) => Promise<MapFileTotals>,
    place: Place,
    dekId: number,
  ): Promise<MapFileTotals> {
    const { store, spares } = this.#options;
    const file = place === 'reserve' ? await spares.takeForMap(name, dekId) : await store.create(name, 0);
    if (file === undefined)
      throw new SealbdError('ENOSPC', 'no room for a map file, and none left in the reserve');
    try {
      const totals = await write(file);
      await file.sync();
      await file.close();
      await store.syncDirectory();
      return totals;
    } catch (error) {
      await file.close();
      await (place === 'reserve' ? spares.putMap(name) : store.remove(name));
      throw error;
    }
  }

  /** A root is durable that names no other files than these, and nothing else needs another: the others go. */
  async removeUnnamed(runs: Iterable<RunRef>): Promise<void> {
    const named = new Set<number>();
    for (const { fileId } of runs) named.add(fileId);
    for (const fileId of [...this.#files]) {
      if (named.has(fileId)) continue;
      this.#files.delete(fileId);
      try {
        await this.#options.spares.putMap(mapFileName(fileId));
      } catch (error) {
        if (errnoOf(error) !== 'ENOENT') throw error; // One that failed is gone already.
      }
    }
  }

  /** Re-reads the files; what does not authenticate, in words. A file that a newer checkpoint replaced is no problem. */
  async verify(runs: readonly RunRef[]): Promise<string[]> {
    const problems: string[] = [];
    for (const [i, run] of runs.entries()) {
      try {
        await withFile(this.#options, run, (source, identity) =>
          readMapFile(source, identity, { base: i === 0 }, ignore, ignore),
        );
      } catch (error) {
        if (this.#files.has(run.fileId)) problems.push(messageOf(error));
      }
    }
    return problems;
  }
}

const ignore = (): void => undefined;

function sortedEntries(segments: readonly SegmentChange[]): SegmentEntry[] {
  return [...segments].sort((a, b) => a.index - b.index).map(segmentEntry);
}

function segmentEntry({ index, segment, slots }: SegmentChange): SegmentEntry {
  if (segment === undefined) return { index, segment: undefined };
  const { kind, suite, dekId, originUuid, salt, id } = segment;
  return { index, segment: { kind, suite, dekId, slots, segmentId: id, originUuid, salt } };
}
