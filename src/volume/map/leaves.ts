import { DenseLeaf, UNMAPPED } from './dense-leaf.js';
import { LeafDirectory, NO_CHUNK } from './directory.js';
import { EntryBuffer } from './entry-buffer.js';
import { MapHeap } from './heap.js';
import type { ReplacedRuns } from './replaced-runs.js';
import { CLASS_CAPACITY, CLASS_FOR, DENSE_CLASS, LEAF_BLOCKS, SPARSE_ENTRIES_MAX } from './size-class.js';
import { SparseLeaf } from './sparse-leaf.js';

/** A dense leaf with this few mapped blocks goes back to sparse; the gap keeps it from going to and fro. */
const DENSE_BLOCKS_MIN = SPARSE_ENTRIES_MAX - 256;

/** The leaves of a block map, each of 4096 blocks: none, sparse or dense. `reserve` must precede `replace`. */
export class Leaves {
  readonly directory = new LeafDirectory();
  readonly heap = new MapHeap(this.directory);
  readonly #sparse = new SparseLeaf();
  readonly #target = new SparseLeaf();
  readonly #dense = new DenseLeaf();
  readonly #buffer = new EntryBuffer();

  /** Slot of a block of a leaf, or UNMAPPED. */
  get(leaf: number, block: number): number {
    const address = this.directory.address(leaf);
    if (address === NO_CHUNK) return UNMAPPED;
    const info = this.directory.info(leaf);
    const sizeClass = info >>> 16;
    if (sizeClass === DENSE_CLASS) {
      this.#dense.open(this.heap, address);
      return this.#dense.slot(block);
    }
    const sparse = this.#sparse;
    const count = info & 0xffff;
    sparse.open(this.heap, address, sizeClass);
    const i = sparse.find(block, count);
    if (i === count) return UNMAPPED;
    const start = sparse.start(i);
    return start <= block ? sparse.slot(i) + (block - start) : UNMAPPED;
  }

  /** The end of the piece at `block` of a leaf with a chunk: a hole or consecutive slots. A run may have several. */
  pieceEnd(leaf: number, block: number): number {
    const address = this.directory.address(leaf);
    const info = this.directory.info(leaf);
    const sizeClass = info >>> 16;
    if (sizeClass === DENSE_CLASS) {
      this.#dense.open(this.heap, address);
      return this.#dense.runEnd(block, LEAF_BLOCKS);
    }
    const sparse = this.#sparse;
    const count = info & 0xffff;
    sparse.open(this.heap, address, sizeClass);
    const i = sparse.find(block, count);
    if (i === count) return LEAF_BLOCKS;
    const start = sparse.start(i);
    return start <= block ? sparse.end(i) : start;
  }

  /** Maps [start, end) of a leaf to `slot` and what follows it, or unmaps it. */
  replace(leaf: number, start: number, end: number, slot: number, replaced: ReplacedRuns): void {
    const address = this.directory.address(leaf);
    if (address === NO_CHUNK) {
      if (slot === UNMAPPED) return;
      this.#buffer.clear();
      this.#buffer.add(start, end - start, slot);
      this.store(leaf, this.#buffer);
    } else if (this.directory.info(leaf) >>> 16 === DENSE_CLASS) {
      this.#replaceDense(leaf, address, start, end, slot, replaced);
    } else {
      this.#replaceSparse(leaf, address, start, end, slot, replaced);
    }
  }

  /** Gives a leaf that has no chunk the entries of a buffer. */
  store(leaf: number, buffer: EntryBuffer): void {
    buffer.finish();
    if (buffer.count > SPARSE_ENTRIES_MAX) {
      const address = this.heap.allocate(leaf, DENSE_CLASS);
      this.#dense.open(this.heap, address);
      this.#dense.reset();
      for (let i = 0; i < buffer.count; i++) {
        const key = buffer.keys[i] as number;
        const slot = (buffer.lows[i] as number) + (buffer.highs[i] as number) * 2 ** 32;
        this.#dense.map(key >>> 4, (key >>> 4) + (1 << (key & 15)), slot);
      }
      this.directory.set(leaf, address, DENSE_CLASS, buffer.blocks);
    } else {
      const sizeClass = CLASS_FOR[buffer.count] as number;
      const address = this.heap.allocate(leaf, sizeClass);
      this.#target.open(this.heap, address, sizeClass);
      this.#target.write(buffer, 0, buffer.count);
      this.directory.set(leaf, address, sizeClass, buffer.count);
    }
  }

  #drop(leaf: number, address: number, sizeClass: number): void {
    this.heap.free(address, sizeClass);
    this.directory.set(leaf, NO_CHUNK, 0, 0);
  }

  #replaceSparse(
    leaf: number,
    address: number,
    start: number,
    end: number,
    slot: number,
    replaced: ReplacedRuns,
  ): void {
    const sparse = this.#sparse;
    const buffer = this.#buffer;
    const info = this.directory.info(leaf);
    const count = info & 0xffff;
    sparse.open(this.heap, address, info >>> 16);
    let first = sparse.find(start, count);
    const overlap = first;
    buffer.clear();

    // Entries that lead up to the new run and are no longer than it join it: like the carry of a binary counter,
    // this keeps a run that grows block by block in few entries, at little cost for each block.
    if (slot !== UNMAPPED && (first === count || sparse.start(first) >= start)) {
      let runStart = start;
      while (first > 0 && sparse.end(first - 1) === runStart) {
        const before = sparse.start(first - 1);
        if (sparse.slot(first - 1) + (start - before) !== slot || runStart - before > end - runStart) break;
        runStart = before;
        first -= 1;
      }
      if (runStart < start) buffer.add(runStart, start - runStart, slot - (start - runStart));
    }
    let last = overlap;
    let tailSlot = UNMAPPED;
    let tailEnd = end;
    for (; last < count && sparse.start(last) < end; last++) {
      const entryStart = sparse.start(last);
      const entryEnd = sparse.end(last);
      const entrySlot = sparse.slot(last);
      const from = Math.max(start, entryStart);
      const to = Math.min(end, entryEnd);
      replaced.add(entrySlot + (from - entryStart), to - from);
      if (entryStart < start) buffer.add(entryStart, start - entryStart, entrySlot);
      if (entryEnd > end) {
        tailSlot = entrySlot + (end - entryStart);
        tailEnd = entryEnd;
      }
    }
    if (slot !== UNMAPPED) buffer.add(start, end - start, slot);
    if (tailSlot !== UNMAPPED) buffer.add(end, tailEnd - end, tailSlot);
    // The same for entries that go on where the last run ends.
    let runEnd = tailEnd;
    let next =
      tailSlot !== UNMAPPED ? tailSlot + (tailEnd - end) : slot === UNMAPPED ? -1 : slot + (end - start);
    while (last < count && sparse.start(last) === runEnd && sparse.slot(last) === next) {
      const entryEnd = sparse.end(last);
      if (entryEnd - runEnd > runEnd - start) break;
      buffer.add(runEnd, entryEnd - runEnd, next);
      next += entryEnd - runEnd;
      runEnd = entryEnd;
      last += 1;
    }
    buffer.finish();
    this.#splice(leaf, address, count, first, last);
  }

  /** Puts the buffer's entries in the place of [first, last) of the leaf that the cursor is at. */
  #splice(leaf: number, address: number, count: number, first: number, last: number): void {
    const sparse = this.#sparse;
    const buffer = this.#buffer;
    const after = count - (last - first) + buffer.count;
    if (after === 0) {
      this.#drop(leaf, address, sparse.sizeClass);
    } else if (after > SPARSE_ENTRIES_MAX) {
      this.#toDense(leaf, address, count, first, last);
    } else if (after <= sparse.capacity && (after > sparse.capacity * 0.75 || sparse.capacity <= 4)) {
      sparse.shift(last, first + buffer.count, count);
      sparse.write(buffer, first, buffer.count);
      this.directory.set(leaf, address, sparse.sizeClass, after);
    } else {
      const sizeClass = CLASS_FOR[after] as number;
      const to = this.heap.allocate(leaf, sizeClass);
      const target = this.#target;
      target.open(this.heap, to, sizeClass);
      target.copy(sparse, 0, 0, first);
      target.write(buffer, first, buffer.count);
      target.copy(sparse, last, first + buffer.count, count - last);
      this.heap.free(address, sparse.sizeClass);
      this.directory.set(leaf, to, sizeClass, after);
    }
  }

  #toDense(leaf: number, address: number, count: number, first: number, last: number): void {
    const to = this.heap.allocate(leaf, DENSE_CLASS);
    const { lows, highs, keys } = this.#buffer;
    this.#dense.open(this.heap, to);
    this.#dense.reset();
    let blocks = 0;
    for (let i = 0; i < count; i++) {
      if (i >= first && i < last) continue;
      this.#dense.map(this.#sparse.start(i), this.#sparse.end(i), this.#sparse.slot(i));
      blocks += this.#sparse.end(i) - this.#sparse.start(i);
    }
    for (let i = 0; i < this.#buffer.count; i++) {
      const key = keys[i] as number;
      const size = 1 << (key & 15);
      this.#dense.map(key >>> 4, (key >>> 4) + size, (lows[i] as number) + (highs[i] as number) * 2 ** 32);
      blocks += size;
    }
    this.heap.free(address, this.#sparse.sizeClass);
    this.directory.set(leaf, to, DENSE_CLASS, blocks);
  }

  #replaceDense(
    leaf: number,
    address: number,
    start: number,
    end: number,
    slot: number,
    replaced: ReplacedRuns,
  ): void {
    const dense = this.#dense;
    dense.open(this.heap, address);
    let blocks = this.directory.info(leaf) & 0xffff;
    for (let block = start; block < end; block++) {
      const old = dense.slot(block);
      if (old === UNMAPPED) continue;
      replaced.add(old, 1);
      blocks -= 1;
    }
    if (slot === UNMAPPED) {
      dense.unmap(start, end);
    } else {
      dense.map(start, end, slot);
      blocks += end - start;
    }
    this.directory.set(leaf, address, DENSE_CLASS, blocks);
    // A writer that passes a leaf's end may have made few runs of it, so that is when to look.
    if (blocks < DENSE_BLOCKS_MIN || end === LEAF_BLOCKS) this.#toSparse(leaf, address, blocks);
  }

  /** Makes a dense leaf sparse, or none, where that is smaller. The cursor is at the leaf. */
  #toSparse(leaf: number, address: number, blocks: number): void {
    if (blocks === 0) {
      this.#drop(leaf, address, DENSE_CLASS);
      return;
    }
    const buffer = this.#buffer;
    buffer.clear();
    for (let block = 0; block < LEAF_BLOCKS; ) {
      const slot = this.#dense.slot(block);
      const runEnd = this.#dense.runEnd(block, LEAF_BLOCKS);
      if (slot !== UNMAPPED) buffer.add(block, runEnd - block, slot);
      if (buffer.count > DENSE_BLOCKS_MIN) return;
      block = runEnd;
    }
    buffer.finish();
    if (buffer.count > DENSE_BLOCKS_MIN) return;
    this.heap.free(address, DENSE_CLASS);
    this.store(leaf, buffer);
  }
}

/** Words of chunks that one call may allocate: edge leaves may become dense, leaves between become one entry. */
export function wordsFor(leaves: number): number {
  const full = 1 + (CLASS_CAPACITY[0] as number) * 2;
  return 2 * (1 + LEAF_BLOCKS + LEAF_BLOCKS / 4) + leaves * full;
}
