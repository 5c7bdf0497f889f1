import { BLOCKS_MAX } from '../../base/limits.js';
import { LEAF_BLOCKS } from './size-class.js';

/** Leaves that one page of the directory describes: 64 GiB of volume. */
const PAGE_LEAVES = 4096;
const PAGE_BYTES = PAGE_LEAVES * 8;
const PAGES = BLOCKS_MAX / LEAF_BLOCKS / PAGE_LEAVES;

/** The address of no chunk: nothing of the leaf is mapped. */
export const NO_CHUNK = 0;

const NO_PAGE = new Uint32Array(0);

/**
 * Two words for each leaf: where its chunk is, and the chunk's size class << 16 | how much is in it (entries of a
 * sparse leaf, mapped blocks of a dense one). This is the only reference to a chunk, so that a chunk can move.
 */
export class LeafDirectory {
  readonly #pages: Uint32Array[] = new Array(PAGES).fill(NO_PAGE);
  #pageCount = 0;

  get bytes(): number {
    return this.#pageCount * PAGE_BYTES;
  }

  /** An upper bound for what `leaves` more leaves in a row can add to `bytes`. */
  static bytesFor(leaves: number): number {
    return (Math.ceil(leaves / PAGE_LEAVES) + 1) * PAGE_BYTES;
  }

  address(leaf: number): number {
    const page = this.#pages[leaf >>> 12] as Uint32Array;
    return page.length === 0 ? NO_CHUNK : (page[(leaf & 4095) * 2] as number);
  }

  /** Of a leaf that has a chunk: size class << 16 | count. */
  info(leaf: number): number {
    return (this.#pages[leaf >>> 12] as Uint32Array)[(leaf & 4095) * 2 + 1] as number;
  }

  set(leaf: number, address: number, sizeClass: number, count: number): void {
    let page = this.#pages[leaf >>> 12] as Uint32Array;
    if (page.length === 0) {
      page = new Uint32Array(PAGE_LEAVES * 2);
      this.#pages[leaf >>> 12] = page;
      this.#pageCount += 1;
    }
    page[(leaf & 4095) * 2] = address;
    page[(leaf & 4095) * 2 + 1] = (sizeClass << 16) | count;
  }

  /** The chunk of `leaf` has moved. */
  relocate(leaf: number, address: number): void {
    (this.#pages[leaf >>> 12] as Uint32Array)[(leaf & 4095) * 2] = address;
  }

  /** The first leaf at or after `leaf`, and before `end`, that has a chunk; else `end`. */
  next(leaf: number, end: number): number {
    let at = leaf;
    while (at < end) {
      const page = this.#pages[at >>> 12] as Uint32Array;
      const pageEnd = Math.min(end, ((at >>> 12) + 1) * PAGE_LEAVES);
      if (page.length !== 0) {
        for (; at < pageEnd; at++) if (page[(at & 4095) * 2] !== NO_CHUNK) return at;
      }
      at = pageEnd;
    }
    return end;
  }
}
