/**
 * Merging sorted runs and sorted segment entries, where the newer wins. Everything streams: a merge holds one
 * batch of each source and one of its own.
 */
import type { SegmentEntry } from './codec.js';
import { type RunBatch, RunOutput, type RunSource } from './run-batch.js';
import { iterate, RunCursor } from './run-cursor.js';
import type { SegmentSource } from './writer.js';

/** Small, because a tree of merges has one batch for each of its nodes. */
const BATCH_ENTRIES = 1024;

export interface MergeOptions {
  /** The result is the first run of a map, which has no tombstones. */
  readonly dropTombstones: boolean;
}

/** The net effect of two sequences of runs. A newer run hides the part of an older one that it overlaps. */
export async function* mergeRuns(
  newer: RunSource,
  older: RunSource,
  options: MergeOptions = { dropTombstones: false },
): AsyncGenerator<RunBatch, void> {
  const a = new RunCursor(newer);
  const b = new RunCursor(older);
  const out = new RunOutput(BATCH_ENTRIES, options.dropTombstones);
  try {
    for (;;) {
      if (a.needsBatch) await a.load();
      if (b.needsBatch) await b.load();
      if (a.done && b.done) break;
      mergeBatches(a, b, out);
      if (!out.full) continue;
      yield out.batch;
      out.batch.count = 0;
    }
    out.finish();
    if (out.batch.count !== 0) yield out.batch;
  } finally {
    await a.close();
    await b.close();
  }
}

/** Merges until a source needs its next batch or the output is full. */
function mergeBatches(newer: RunCursor, older: RunCursor, out: RunOutput): void {
  while (!newer.needsBatch && !older.needsBatch && !out.full && !(newer.done && older.done)) {
    if (newer.lba <= older.lba) {
      if (older.lba < newer.end) {
        // Hidden, at least in part. The newer run stays until nothing older is left below it.
        older.skipTo(Math.min(older.end, newer.end));
      } else {
        out.add(newer.lba, newer.end - newer.lba, newer.slot);
        newer.skipTo(newer.end);
      }
    } else {
      const end = Math.min(older.end, newer.lba);
      out.add(older.lba, end - older.lba, older.slot);
      older.skipTo(end);
    }
  }
}

/** The net effect of many sequences, oldest first. */
export function mergeAll(
  sources: readonly RunSource[],
  options: MergeOptions = { dropTombstones: false },
): RunSource {
  const [first] = sources;
  if (first === undefined) return [];
  if (sources.length === 1) return options.dropTombstones ? mergeRuns([], first, options) : first;
  // Halves, so that each run passes through few merges.
  const middle = sources.length >>> 1;
  return mergeRuns(mergeAll(sources.slice(middle)), mergeAll(sources.slice(0, middle)), options);
}

export async function* mergeSegments(
  newer: SegmentSource,
  older: SegmentSource,
  options: MergeOptions = { dropTombstones: false },
): AsyncGenerator<SegmentEntry, void> {
  const a = iterate(newer);
  const b = iterate(older);
  try {
    let x = await a.next();
    let y = await b.next();
    while (!x.done || !y.done) {
      const takeNewer = !x.done && (y.done || x.value.index <= y.value.index);
      const entry = (takeNewer ? x.value : y.value) as SegmentEntry;
      if (entry.segment !== undefined || !options.dropTombstones) yield entry;
      if (!y.done && y.value.index === entry.index) y = await b.next();
      if (takeNewer) x = await a.next();
    }
  } finally {
    await a.return?.();
    await b.return?.();
  }
}

export function mergeAllSegments(
  sources: readonly SegmentSource[],
  options: MergeOptions = { dropTombstones: false },
): SegmentSource {
  const [first] = sources;
  if (first === undefined) return [];
  if (sources.length === 1) return options.dropTombstones ? mergeSegments([], first, options) : first;
  const middle = sources.length >>> 1;
  const newer = mergeAllSegments(sources.slice(middle));
  return mergeSegments(newer, mergeAllSegments(sources.slice(0, middle)), options);
}
