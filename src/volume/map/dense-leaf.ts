import { HIGH } from './entry-buffer.js';
import type { MapHeap } from './heap.js';
import { DENSE_WORDS, LEAF_BLOCKS } from './size-class.js';

/** What get() says of a block that nothing is stored for. */
export const UNMAPPED = -1;

const NO_LOW = 0xffff_ffff;
const NO_HIGH = 0xff;

/** A cursor over one dense leaf: a slot address of 5 bytes for each block, all ones for none. */
export class DenseLeaf {
  #words: Uint32Array = new Uint32Array(0);
  #bytes: Uint8Array = new Uint8Array(0);
  #lows = 0;
  #highs = 0;

  open(heap: MapHeap, address: number): void {
    const slab = address >>> 16;
    this.#words = heap.words[slab] as Uint32Array;
    this.#bytes = heap.bytes[slab] as Uint8Array;
    this.#lows = (address & 0xffff) + 1;
    this.#highs = (this.#lows + LEAF_BLOCKS) * 4;
  }

  /** Unmaps every block. */
  reset(): void {
    this.#words.fill(NO_LOW, this.#lows, this.#lows + DENSE_WORDS - 1);
  }

  slot(block: number): number {
    const high = this.#bytes[this.#highs + block] as number;
    const low = this.#words[this.#lows + block] as number;
    return high === NO_HIGH && low === NO_LOW ? UNMAPPED : low + high * HIGH;
  }

  /** Maps [start, end) to `slot` and what follows it. */
  map(start: number, end: number, slot: number): void {
    for (let block = start; block < end; block++) {
      const address = slot + (block - start);
      this.#words[this.#lows + block] = address;
      this.#bytes[this.#highs + block] = address / HIGH;
    }
  }

  unmap(start: number, end: number): void {
    this.#words.fill(NO_LOW, this.#lows + start, this.#lows + end);
    this.#bytes.fill(NO_HIGH, this.#highs + start, this.#highs + end);
  }

  /** The end of the run at `start`, at most `end`: consecutive slots, or all unmapped. */
  runEnd(start: number, end: number): number {
    const slot = this.slot(start);
    let block = start + 1;
    if (slot === UNMAPPED) {
      while (block < end && this.slot(block) === UNMAPPED) block++;
    } else {
      while (block < end && this.slot(block) === slot + (block - start)) block++;
    }
    return block;
  }
}
