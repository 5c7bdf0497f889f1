/** Where two maps differ. Both stream; a run of neither goes on from one segment into the next. */
import { UNMAPPED } from '../volume/block-map.js';
import type { RunSource } from '../volume/map-file/run-batch.js';
import { RunCursor } from '../volume/map-file/run-cursor.js';

/** Blocks that one map has somewhere else than the other, or not at all (UNMAPPED). */
export interface Difference {
  readonly lba: number;
  readonly blocks: number;
  readonly before: number;
  readonly after: number;
}

const BATCH = 1024;

/** In order of block number. A batch is valid until the next one is asked for. */
export async function* differences(before: RunSource, after: RunSource): AsyncGenerator<Difference[]> {
  const [a, b] = [new RunCursor(before), new RunCursor(after)];
  let batch: Difference[] = [];
  try {
    for (;;) {
      if (a.needsBatch) await a.load();
      if (b.needsBatch) await b.load();
      if (a.done && b.done) break;
      while (!a.needsBatch && !b.needsBatch && !(a.done && b.done) && batch.length < BATCH) step(a, b, batch);
      if (batch.length < BATCH) continue;
      yield batch;
      batch = [];
    }
    if (batch.length > 0) yield batch;
  } finally {
    await a.close();
    await b.close();
  }
}

/** One piece from the lower start to the next place where either map changes. */
function step(a: RunCursor, b: RunCursor, out: Difference[]): void {
  const lba = Math.min(a.lba, b.lba);
  const end = Math.min(a.lba > lba ? a.lba : a.end, b.lba > lba ? b.lba : b.end);
  const before = a.lba > lba ? UNMAPPED : a.slot;
  const after = b.lba > lba ? UNMAPPED : b.slot;
  if (before !== after) out.push({ lba, blocks: end - lba, before, after });
  if (before !== UNMAPPED) a.skipTo(end);
  if (after !== UNMAPPED) b.skipTo(end);
}
