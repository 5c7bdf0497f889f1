import { type RunBatch, RunOutput } from './run-batch.js';

/** Changes that one call can sort: a block number and an index share a double. */
export const SORTED_CHANGES_MAX = 2 ** 18;

/**
 * The net effect of `lba.length` changes in the order in which they were made: sorted runs that do not overlap. A
 * sweep over the changes by block number keeps those that cover the current block, the latest on top.
 */
export function sortChanges(lba: Float64Array, blocks: ArrayLike<number>, slot: Float64Array): RunBatch {
  const count = lba.length;
  if (count > SORTED_CHANGES_MAX) throw new RangeError(`${count} changes at once`);
  const order = new Float64Array(count);
  for (let i = 0; i < count; i++) order[i] = (lba[i] as number) * SORTED_CHANGES_MAX + i;
  order.sort();

  // Each change begins once and ends once, so twice as many runs at most.
  const out = new RunOutput(2 * count + 1, false);
  const covering = new NewestFirst(count);
  let at = 0;
  const sweep = (until: number): void => {
    while (at < until && !covering.empty) {
      const change = covering.top;
      const start = lba[change] as number;
      const end = start + (blocks[change] as number);
      if (end > at) {
        const stop = Math.min(end, until);
        const address = slot[change] as number;
        out.add(at, stop - at, address < 0 ? address : address + (at - start));
        at = stop;
      } else {
        covering.pop();
      }
    }
  };
  for (const key of order) {
    const change = key % SORTED_CHANGES_MAX;
    const start = lba[change] as number;
    sweep(start);
    at = start;
    covering.push(change);
  }
  sweep(Number.POSITIVE_INFINITY);
  out.finish();
  return out.batch;
}

/** A binary heap of change numbers, the largest on top. */
class NewestFirst {
  readonly #items: Int32Array;
  #count = 0;

  constructor(capacity: number) {
    this.#items = new Int32Array(capacity);
  }

  get empty(): boolean {
    return this.#count === 0;
  }

  get top(): number {
    return this.#items[0] as number;
  }

  push(item: number): void {
    const items = this.#items;
    let i = this.#count++;
    while (i > 0) {
      const parent = (i - 1) >>> 1;
      const other = items[parent] as number;
      if (other >= item) break;
      items[i] = other;
      i = parent;
    }
    items[i] = item;
  }

  pop(): void {
    const items = this.#items;
    const item = items[--this.#count] as number;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= this.#count) break;
      if (child + 1 < this.#count && (items[child + 1] as number) > (items[child] as number)) child += 1;
      if ((items[child] as number) <= item) break;
      items[i] = items[child] as number;
      i = child;
    }
    items[i] = item;
  }
}
