import type { RunBatch, RunSource } from './run-batch.js';

/** The first run of a source that is not used up. At the end of the source it is one beyond all blocks. */
export class RunCursor {
  readonly #batches: AsyncIterator<RunBatch> | Iterator<RunBatch>;
  #batch: RunBatch | undefined;
  #index = 0;
  needsBatch = true;
  done = false;
  lba = Number.POSITIVE_INFINITY;
  end = Number.POSITIVE_INFINITY;
  slot = 0;

  constructor(source: RunSource) {
    this.#batches = iterate(source);
  }

  async load(): Promise<void> {
    do {
      const { done, value } = await this.#batches.next();
      this.#batch = done ? undefined : value;
    } while (this.#batch?.count === 0);
    this.#index = 0;
    this.needsBatch = false;
    this.done = this.#batch === undefined;
    this.#show();
  }

  /** Forgets what is before `block`, which is inside the run or its end. */
  skipTo(block: number): void {
    if (block < this.end) {
      if (this.slot >= 0) this.slot += block - this.lba;
      this.lba = block;
      return;
    }
    this.#index += 1;
    if (this.#batch !== undefined && this.#index === this.#batch.count) this.needsBatch = true;
    else this.#show();
  }

  async close(): Promise<void> {
    await this.#batches.return?.();
  }

  #show(): void {
    const batch = this.#batch;
    if (batch === undefined) {
      this.lba = Number.POSITIVE_INFINITY;
      this.end = Number.POSITIVE_INFINITY;
      return;
    }
    this.lba = batch.lba[this.#index] as number;
    this.end = this.lba + (batch.blocks[this.#index] as number);
    this.slot = batch.slot[this.#index] as number;
  }
}

/** Of a source that streams, or that is all there. */
export function iterate<T>(source: AsyncIterable<T> | Iterable<T>): AsyncIterator<T> | Iterator<T> {
  return Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
}
