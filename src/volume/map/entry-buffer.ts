import { LEAF_BLOCKS } from './size-class.js';

/** 2^32, the weight of a slot address's high byte. */
export const HIGH = 4_294_967_296;

/**
 * Entries of one leaf being put together. An entry covers 2^exponent blocks, so that block number (12 bits) and
 * exponent (4 bits) share a key of 16 bits; a run of other length becomes several entries, largest first.
 */
export class EntryBuffer {
  readonly keys = new Uint16Array(LEAF_BLOCKS);
  readonly lows = new Uint32Array(LEAF_BLOCKS);
  readonly highs = new Uint8Array(LEAF_BLOCKS);
  /** Entries put out so far. */
  count = 0;
  /** Blocks that all runs added since `clear` cover. */
  blocks = 0;
  // The last run, still growing.
  #start = 0;
  #length = 0;
  #slot = 0;

  clear(): void {
    this.count = 0;
    this.blocks = 0;
    this.#length = 0;
  }

  /** Adds a run behind all others; one that continues the last joins it. */
  add(start: number, blocks: number, slot: number): void {
    this.blocks += blocks;
    const length = this.#length;
    if (length !== 0 && start === this.#start + length && slot === this.#slot + length) {
      this.#length = length + blocks;
      return;
    }
    if (length !== 0) this.finish();
    this.#start = start;
    this.#length = blocks;
    this.#slot = slot;
  }

  /** Puts out the last run. */
  finish(): void {
    let start = this.#start;
    let slot = this.#slot;
    let left = this.#length;
    this.#length = 0;
    while (left !== 0) {
      const exponent = 31 - Math.clz32(left);
      const i = this.count++;
      this.keys[i] = (start << 4) | exponent;
      this.lows[i] = slot;
      this.highs[i] = slot / HIGH;
      start += 1 << exponent;
      slot += 1 << exponent;
      left -= 1 << exponent;
    }
  }
}
