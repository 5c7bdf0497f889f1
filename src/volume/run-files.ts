/** Reads the map files of a root or a snapshot from the store, and loads what a root says. */
import { errnoOf, isSealbdError, SealbdError } from '../base/errors.js';
import type { KeyHandle } from '../native/addon.js';
import { Segment } from '../segment/segment.js';
import type { Store, StoreFile } from '../store/store.js';
import type { BlockMap } from './block-map.js';
import type { RunRef } from './checkpoint-root.js';
import { mapFileName, type SegmentRecord } from './map-file/codec.js';
import { mergeAll, mergeAllSegments } from './map-file/merge.js';
import { MapFileReader, type MapFileSource, readMapFile } from './map-file/reader.js';
import type { RunBatch } from './map-file/run-batch.js';
import type { MapFileIdentity } from './map-file/writer.js';
import type { SegmentTable } from './segment-table.js';

export interface RunFilesOptions {
  readonly store: Store;
  readonly uuid: Uint8Array;
  readonly deks: ReadonlyMap<number, KeyHandle>;
}

/** Loads the runs of a root, oldest first, into an empty map and an empty table, and counts what is live in each segment. */
export async function loadRuns(
  options: RunFilesOptions,
  runs: readonly RunRef[],
  map: BlockMap,
  table: SegmentTable,
): Promise<void> {
  await withReaders(options, runs, true, async (readers) => {
    const merge = { dropTombstones: true };
    for await (const { index, segment } of mergeAllSegments(
      readers.map((reader) => reader.segments()),
      merge,
    )) {
      if (segment === undefined) continue;
      const { slots, segmentId, ...rest } = segment;
      table.add(new Segment({ ...rest, index, id: segmentId }, slots, true));
    }
    const loader = map.loader();
    for await (const batch of mergeAll(
      readers.map((reader) => reader.runs()),
      merge,
    )) {
      for (let i = 0; i < batch.count; i++) {
        loader.add(batch.lba[i], batch.blocks[i], batch.slot[i]);
        table.addLive(batch.slot[i], batch.blocks[i]);
      }
    }
    loader.finish();
  });
}

/** Opens the files of `runs`; the first is the first run of the map if `first`. */
export async function withReaders<T>(
  options: RunFilesOptions,
  runs: readonly RunRef[],
  first: boolean,
  use: (readers: MapFileReader[]) => Promise<T>,
): Promise<T> {
  const readers: MapFileReader[] = [];
  const open = (i: number): Promise<T> => {
    if (i === runs.length) return use(readers);
    return withFile(options, runs[i], async (source, identity) => {
      readers.push(await MapFileReader.open(source, identity, { base: first && i === 0 }));
      return open(i + 1);
    });
  };
  return open(0);
}

/** What the runs say in all, by block number and without tombstones. Their files must not go meanwhile. */
export async function* readRuns(options: RunFilesOptions, runs: readonly RunRef[]): AsyncGenerator<RunBatch> {
  const opened: OpenRun[] = [];
  try {
    const readers: MapFileReader[] = [];
    for (const [i, run] of runs.entries()) {
      const open = await openRun(options, run);
      opened.push(open);
      readers.push(await MapFileReader.open(open.source, open.identity, { base: i === 0 }));
    }
    // They come first in a file; what counts of them is in the segment table of the volume.
    for (const reader of readers) for await (const _entry of reader.segments());
    yield* mergeAll(
      readers.map((reader) => reader.runs()),
      { dropTombstones: true },
    );
  } finally {
    for (const { file } of opened) await file.close();
  }
}

/** The indexes that the segment entries of these runs name a segment under. */
export function segmentIndexes(options: RunFilesOptions, runs: readonly RunRef[]): Promise<number[]> {
  return withReaders(options, runs, true, async (readers) => {
    const indexes: number[] = [];
    const sources = readers.map((reader) => reader.segments());
    for await (const { index } of mergeAllSegments(sources, { dropTombstones: true })) indexes.push(index);
    return indexes;
  });
}

/** The segments in the table of a snapshot, and how many blocks of each it holds. */
export function readTable(
  options: RunFilesOptions,
  run: RunRef,
): Promise<(SegmentRecord & { index: number })[]> {
  return withFile(options, run, async (source, identity) => {
    const segments: (SegmentRecord & { index: number })[] = [];
    await readMapFile(
      source,
      identity,
      { base: true },
      () => {
        throw new SealbdError(
          'INTEGRITY',
          `${mapFileName(run.fileId)} is the table of a snapshot, and has map entries`,
        );
      },
      ({ index, segment }) => {
        if (segment !== undefined) segments.push({ index, ...segment });
      },
    );
    return segments;
  });
}

export async function withFile<T>(
  options: RunFilesOptions,
  run: RunRef,
  use: (source: MapFileSource, identity: MapFileIdentity) => Promise<T>,
): Promise<T> {
  const { file, source, identity } = await openRun(options, run);
  try {
    return await use(source, identity);
  } finally {
    await file.close();
  }
}

interface OpenRun {
  readonly file: StoreFile;
  readonly source: MapFileSource;
  readonly identity: MapFileIdentity;
}

async function openRun({ store, uuid, deks }: RunFilesOptions, run: RunRef): Promise<OpenRun> {
  const name = mapFileName(run.fileId);
  const { dekId, fileId, salt } = run;
  const key = deks.get(dekId);
  if (key === undefined)
    throw new SealbdError('INTEGRITY', `${name} names DEK ${dekId}, which this volume does not have`);
  const file = await openMapFile(store, name);
  try {
    const sizeBytes = await file.size();
    // A file of the reserve is longer than its content.
    if (sizeBytes < run.bytes)
      throw new SealbdError('INTEGRITY', `${name} has ${sizeBytes} bytes instead of ${run.bytes}`);
    const source: MapFileSource = { sizeBytes: run.bytes, read: (bytes, offset) => file.read(bytes, offset) };
    return { file, source, identity: { dekId, uuid, fileId, salt, key } };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** True where what a map file should say can't be had: it does not authenticate, is missing, or the disk does not give it. */
export function isUnreadable(error: unknown): boolean {
  if (isSealbdError(error, 'INTEGRITY')) return true;
  return errnoOf(error) === 'EIO' && error instanceof Error && 'syscall' in error && error.syscall === 'read';
}

async function openMapFile(store: Store, name: string): Promise<StoreFile> {
  try {
    return await store.open(name, 'read');
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    throw new SealbdError('INTEGRITY', `${name} is missing`, { cause: error });
  }
}

/** The id in a map file's name, or undefined for any other name. */
export function parseMapFileName(name: string): number | undefined {
  const match = /^map-([0-9a-f]{16})$/.exec(name);
  return match === null ? undefined : Number.parseInt(match[1], 16);
}
