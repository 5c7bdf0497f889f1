import { LeafDirectory } from './directory.js';
import { EntryBuffer } from './entry-buffer.js';
import { type Leaves, wordsFor } from './leaves.js';
import { LEAF_BLOCKS } from './size-class.js';

/** Fills an empty map with sorted runs, each leaf stored once and without spare room. */
export class MapLoader {
  readonly #leaves: Leaves;
  readonly #bytesMax: number;
  readonly #done: (mappedBlocks: number) => void;
  readonly #buffer = new EntryBuffer();
  #leaf = 0;
  #end = 0;
  #mapped = 0;

  constructor(leaves: Leaves, bytesMax: number, done: (mappedBlocks: number) => void) {
    this.#leaves = leaves;
    this.#bytesMax = bytesMax;
    this.#done = done;
  }

  /** Adds a mapped run that starts at or after the end of the last. Throws ENOMEM. */
  add(lba: number, blocks: number, slot: number): void {
    if (!(lba >= this.#end) || !(blocks >= 1)) throw new RangeError(`run at ${lba} is out of order`);
    const end = lba + blocks;
    for (let at = lba; at < end; ) {
      const leaf = (at / LEAF_BLOCKS) | 0;
      if (leaf !== this.#leaf) this.#store(leaf);
      const start = at - leaf * LEAF_BLOCKS;
      const length = Math.min(LEAF_BLOCKS - start, end - at);
      this.#buffer.add(start, length, slot + (at - lba));
      at += length;
    }
    this.#end = end;
    this.#mapped += blocks;
  }

  /** Makes the last leaf part of the map. Nothing may be added afterwards. */
  finish(): void {
    this.#store(0);
    this.#end = Number.POSITIVE_INFINITY;
    this.#done(this.#mapped);
  }

  #store(nextLeaf: number): void {
    if (this.#buffer.blocks !== 0) {
      this.#leaves.heap.reserve(wordsFor(1), LeafDirectory.bytesFor(1), this.#bytesMax);
      this.#leaves.store(this.#leaf, this.#buffer);
      this.#buffer.clear();
    }
    this.#leaf = nextLeaf;
  }
}
