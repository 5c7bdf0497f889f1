/**
 * The block map: block number on the device -> slot address (segment index * 16384 + position), in memory outside
 * the JavaScript heap. A leaf covers 4096 blocks and is either sparse (sorted entries of 7 bytes, each 2^k blocks
 * with consecutive slots) or dense (5 bytes a block), so a mapped block costs 8 bytes or so at worst and next to
 * nothing in long runs. See map/ for the parts.
 */
import { BLOCKS_MAX, MAP_BYTES_MAX, SLOT_ADDRESS_END } from '../base/limits.js';
import { UNMAPPED } from './map/dense-leaf.js';
import { LeafDirectory, NO_CHUNK } from './map/directory.js';
import { Leaves, wordsFor } from './map/leaves.js';
import { MapLoader } from './map/loader.js';
import { type OnReplaced, ReplacedRuns } from './map/replaced-runs.js';
import { LEAF_BLOCKS } from './map/size-class.js';

export type { MapLoader, OnReplaced };
export { UNMAPPED };

/** A piece of the map: a hole (slot UNMAPPED), or blocks in consecutive slots. */
export interface MapRun {
  slot: number;
  blocks: number;
}

export class BlockMap {
  readonly #leaves = new Leaves();
  readonly #replaced = new ReplacedRuns();
  readonly #scratch: MapRun = { slot: UNMAPPED, blocks: 0 };
  readonly #bytesMax: number;
  /** TRIM is to work when the map is full, though it may split runs. */
  readonly #unmapBytesMax: number;
  #mappedBlocks = 0;
  #busy = false;

  constructor(bytesMax: number = MAP_BYTES_MAX) {
    this.#bytesMax = bytesMax;
    this.#unmapBytesMax = bytesMax + bytesMax / 8;
  }

  get mappedBlocks(): number {
    return this.#mappedBlocks;
  }

  /** Memory outside the JavaScript heap. */
  get memoryBytes(): number {
    return this.#leaves.heap.memoryBytes;
  }

  /** The slot address of a block, or UNMAPPED. */
  get(lba: number): number {
    const leaf = (lba / LEAF_BLOCKS) | 0;
    return this.#leaves.get(leaf, lba - leaf * LEAF_BLOCKS);
  }

  /**
   * Maps lba + i to slot + i for i < blocks, and reports every run of slot addresses that lost its reference.
   * `onReplaced` runs in the middle of the change: it must not change the map, and where it throws, the map
   * takes no more changes. Throws ENOMEM, and changes nothing, where the memory limit could be exceeded.
   */
  setRun(lba: number, blocks: number, slot: number, onReplaced: OnReplaced): void {
    checkBlocks(lba, blocks);
    if (!(slot >= 0 && slot + blocks <= SLOT_ADDRESS_END))
      throw new RangeError(`slot ${slot} is out of range`);
    this.#replace(lba, blocks, slot, onReplaced, this.#bytesMax);
  }

  /** Unmaps blocks. The same as `setRun` otherwise; its memory limit is an eighth higher. */
  unmapRun(lba: number, blocks: number, onReplaced: OnReplaced): void {
    checkBlocks(lba, blocks);
    this.#replace(lba, blocks, UNMAPPED, onReplaced, this.#unmapBytesMax);
  }

  /** Maps a block to `to` if it is mapped to `from`, and says whether. Not subject to the memory limit. */
  move(lba: number, from: number, to: number): boolean {
    checkBlocks(lba, 1);
    if (!(to >= 0 && to < SLOT_ADDRESS_END)) throw new RangeError(`slot ${to} is out of range`);
    if (from === UNMAPPED || this.get(lba) !== from) return false;
    this.#replace(lba, 1, to, ignore, Number.POSITIVE_INFINITY);
    return true;
  }

  /** The longest run at `lba`, of at most `blocksMax` blocks: one hole, or consecutive slots. */
  runAt(lba: number, blocksMax: number, out: MapRun): void {
    const { directory } = this.#leaves;
    const end = Math.min(lba + blocksMax, BLOCKS_MAX);
    const slot = this.get(lba);
    const step = slot === UNMAPPED ? 0 : 1;
    let at = lba;
    for (;;) {
      const leaf = (at / LEAF_BLOCKS) | 0;
      if (directory.address(leaf) === NO_CHUNK) {
        at = directory.next(leaf, Math.ceil(end / LEAF_BLOCKS)) * LEAF_BLOCKS;
      } else {
        at = leaf * LEAF_BLOCKS + this.#leaves.pieceEnd(leaf, at - leaf * LEAF_BLOCKS);
      }
      if (at >= end) {
        at = end;
        break;
      }
      if (this.get(at) !== slot + step * (at - lba)) break;
    }
    out.slot = slot;
    out.blocks = at - lba;
  }

  /** Visits the mapped runs in order of block number. The map must not change meanwhile. */
  forEachRun(visit: (lba: number, blocks: number, slot: number) => void): void {
    const run = this.#scratch;
    for (let lba = 0; lba < BLOCKS_MAX; ) {
      this.runAt(lba, BLOCKS_MAX - lba, run);
      const { blocks, slot } = run;
      if (slot !== UNMAPPED) visit(lba, blocks, slot);
      lba += blocks;
    }
  }

  /** The fast way to fill an empty map with sorted runs. The map counts as empty until `finish`. */
  loader(): MapLoader {
    if (this.#mappedBlocks !== 0 || this.#busy) throw new Error('only an empty map can be loaded');
    this.#busy = true;
    return new MapLoader(this.#leaves, this.#bytesMax, (mappedBlocks) => {
      this.#mappedBlocks = mappedBlocks;
      this.#busy = false;
    });
  }

  #replace(lba: number, blocks: number, slot: number, onReplaced: OnReplaced, bytesMax: number): void {
    if (this.#busy) throw new Error('the block map is being changed');
    const { directory, heap } = this.#leaves;
    const end = lba + blocks;
    const leafEnd = Math.ceil(end / LEAF_BLOCKS);
    if (slot === UNMAPPED) {
      heap.reserve(wordsFor(0), 0, bytesMax);
    } else {
      const leaves = leafEnd - ((lba / LEAF_BLOCKS) | 0);
      heap.reserve(wordsFor(leaves), LeafDirectory.bytesFor(leaves), bytesMax);
    }
    this.#busy = true;
    this.#replaced.begin(onReplaced);
    for (let at = lba; at < end; ) {
      const leaf = (at / LEAF_BLOCKS) | 0;
      if (slot === UNMAPPED && directory.address(leaf) === NO_CHUNK) {
        at = directory.next(leaf, leafEnd) * LEAF_BLOCKS;
        continue;
      }
      const base = leaf * LEAF_BLOCKS;
      const stop = Math.min(LEAF_BLOCKS, end - base);
      const target = slot === UNMAPPED ? UNMAPPED : slot + (at - lba);
      this.#leaves.replace(leaf, at - base, stop, target, this.#replaced);
      at = base + stop;
    }
    this.#replaced.end();
    this.#mappedBlocks += (slot === UNMAPPED ? 0 : blocks) - this.#replaced.total;
    this.#busy = false;
  }
}

function ignore(): void {}

function checkBlocks(lba: number, blocks: number): void {
  if (!(lba >= 0 && blocks >= 1 && lba + blocks <= BLOCKS_MAX)) {
    throw new RangeError(`blocks ${lba}..${lba + blocks} are out of range`);
  }
}
