/** Where two maps differ. Both stream; a run of neither goes on from one segment into the next. */
import { UNMAPPED } from '../volume/block-map.js';
import type { RunBatch, RunSource } from '../volume/map-file/run-batch.js';

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
  const [a, b] = [new Cursor(before), new Cursor(after)];
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
function step(a: Cursor, b: Cursor, out: Difference[]): void {
  const lba = Math.min(a.lba, b.lba);
  const end = Math.min(a.lba > lba ? a.lba : a.end, b.lba > lba ? b.lba : b.end);
  const before = a.lba > lba ? UNMAPPED : a.slot;
  const after = b.lba > lba ? UNMAPPED : b.slot;
  if (before !== after) out.push({ lba, blocks: end - lba, before, after });
  if (before !== UNMAPPED) a.skipTo(end);
  if (after !== UNMAPPED) b.skipTo(end);
}

/** The first run of a source that is not used up; one beyond all blocks at its end. */
class Cursor {
  readonly #batches: AsyncIterator<RunBatch> | Iterator<RunBatch>;
  #batch: RunBatch | undefined;
  #at = 0;
  needsBatch = true;
  done = false;
  lba = Number.POSITIVE_INFINITY;
  end = Number.POSITIVE_INFINITY;
  slot = UNMAPPED;

  constructor(source: RunSource) {
    this.#batches =
      Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  }

  async load(): Promise<void> {
    do {
      const { done, value } = await this.#batches.next();
      this.#batch = done ? undefined : value;
    } while (this.#batch?.count === 0);
    this.#at = 0;
    this.needsBatch = false;
    this.done = this.#batch === undefined;
    this.#show();
  }

  /** Forgets what is before `lba`, which is inside the run or its end. */
  skipTo(lba: number): void {
    if (lba < this.end) {
      this.slot += lba - this.lba;
      this.lba = lba;
      return;
    }
    this.#at++;
    if (this.#batch !== undefined && this.#at === this.#batch.count) this.needsBatch = true;
    else this.#show();
  }

  async close(): Promise<void> {
    await this.#batches.return?.();
  }

  #show(): void {
    const batch = this.#batch;
    this.lba = batch === undefined ? Number.POSITIVE_INFINITY : batch.lba[this.#at];
    this.end = batch === undefined ? Number.POSITIVE_INFINITY : this.lba + batch.blocks[this.#at];
    this.slot = batch === undefined ? UNMAPPED : batch.slot[this.#at];
  }
}
