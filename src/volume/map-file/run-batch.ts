import { UNMAPPED } from '../map/dense-leaf.js';

/**
 * A part of a sorted sequence of runs: `blocks` blocks from `lba` on are mapped to `slot` and what follows it, or
 * unmapped (slot UNMAPPED). A batch that comes out of an iterator is valid until the next one is asked for.
 */
export class RunBatch {
  readonly lba: Float64Array;
  readonly blocks: Float64Array;
  readonly slot: Float64Array;
  count = 0;

  constructor(capacity: number) {
    this.lba = new Float64Array(capacity);
    this.blocks = new Float64Array(capacity);
    this.slot = new Float64Array(capacity);
  }

  get capacity(): number {
    return this.lba.length;
  }

  push(lba: number, blocks: number, slot: number): void {
    const i = this.count++;
    this.lba[i] = lba;
    this.blocks[i] = blocks;
    this.slot[i] = slot;
  }
}

/** Sorted runs that do not overlap. */
export type RunSource = AsyncIterable<RunBatch> | Iterable<RunBatch>;

/** Fills a batch with sorted runs, joining those that continue each other. */
export class RunOutput {
  readonly batch: RunBatch;
  readonly #dropUnmapped: boolean;
  #lba = 0;
  #blocks = 0;
  #slot = UNMAPPED;

  constructor(capacity: number, dropUnmapped: boolean) {
    this.batch = new RunBatch(capacity);
    this.#dropUnmapped = dropUnmapped;
  }

  get full(): boolean {
    return this.batch.count === this.batch.capacity;
  }

  /** Must not be called when the batch is full. */
  add(lba: number, blocks: number, slot: number): void {
    if (slot === UNMAPPED && this.#dropUnmapped) return;
    const next = this.#slot === UNMAPPED ? UNMAPPED : this.#slot + this.#blocks;
    if (this.#blocks !== 0 && lba === this.#lba + this.#blocks && slot === next) {
      this.#blocks += blocks;
      return;
    }
    this.finish();
    this.#lba = lba;
    this.#blocks = blocks;
    this.#slot = slot;
  }

  /** Puts out the run that was still growing. Must not be called when the batch is full. */
  finish(): void {
    if (this.#blocks !== 0) this.batch.push(this.#lba, this.#blocks, this.#slot);
    this.#blocks = 0;
  }
}
