/**
 * The way of a change through the volume: which blocks it covers, whole or in part, and what it must wait for. It knows the
 * map and the log's head; admission, durability and state are the volume's.
 */
import { setImmediate } from 'node:timers/promises';
import { BLOCK_BYTES } from '../base/limits.js';
import { Gather, type MaybePromise } from '../base/maybe-promise.js';
import type { Arena } from '../native/arena.js';
import { BlockLocks } from './block-locks.js';
import { type BlockMap, UNMAPPED } from './block-map.js';
import type { BounceBlocks } from './bounce-blocks.js';
import type { HeadLog } from './head-log.js';
import { cutAtBlocks, type ReadPath } from './read-path.js';
import type { SegmentTable } from './segment-table.js';

export interface DataPathOptions {
  readonly map: BlockMap;
  readonly table: SegmentTable;
  readonly reads: ReadPath;
  readonly bounce: BounceBlocks;
  readonly head: HeadLog;
  /** The map has changed: blocks from `lba` on were unmapped. */
  onUnmapped(lba: number, blocks: number): void;
}

/** Blocks (1 GiB of them) that are unmapped in one go. */
const UNMAP_STEP_BLOCKS = 2 ** 18;
export class DataPath {
  readonly #map: BlockMap;
  readonly #table: SegmentTable;
  readonly #reads: ReadPath;
  readonly #head: HeadLog;
  readonly #options: DataPathOptions;
  readonly #locks = new BlockLocks();
  readonly #bounce: BounceBlocks;
  readonly #conflict = (lba: number, blocks: number): Promise<void> | undefined =>
    this.#locks.conflict(lba, blocks);

  constructor(options: DataPathOptions) {
    this.#map = options.map;
    this.#table = options.table;
    this.#reads = options.reads;
    this.#bounce = options.bounce;
    this.#head = options.head;
    this.#options = options;
  }

  write(src: Arena, srcOffset: number, offset: number, length: number): MaybePromise<void> {
    const { lba, blocks, before, after } = cutAtBlocks(offset, length);
    if (before === 0 && after === 0) return this.#writeBlocks(src, srcOffset, lba, blocks);
    const gather = new Gather();
    const whole = srcOffset + before;
    const tail = whole + blocks * BLOCK_BYTES;
    const parts = [
      () =>
        before > 0
          ? this.#overlay(offset, before, (to) => to.set(src.bytes.subarray(srcOffset, srcOffset + before)))
          : undefined,
      () => (blocks > 0 ? this.#writeBlocks(src, whole, lba, blocks) : undefined),
      () =>
        after > 0
          ? this.#overlay((lba + blocks) * BLOCK_BYTES, after, (to) =>
              to.set(src.bytes.subarray(tail, tail + after)),
            )
          : undefined,
    ];
    for (const part of parts) if (!gather.add(part)) break;
    return gather.result();
  }

  #writeBlocks(src: Arena, srcOffset: number, lba: number, blocks: number): MaybePromise<void> {
    const conflict = this.#locks.conflict(lba, blocks);
    if (conflict !== undefined) return conflict.then(() => this.#writeBlocks(src, srcOffset, lba, blocks));
    return this.#head.append(src, srcOffset, lba, blocks, this.#conflict);
  }

  /** Changes a piece of one block: read, modify, write, with the block locked where any of it takes time. */
  #overlay(offset: number, length: number, put: (piece: Uint8Array) => void): MaybePromise<void> {
    const lba = Math.floor(offset / BLOCK_BYTES);
    const conflict = this.#locks.conflict(lba, 1);
    if (conflict !== undefined) return conflict.then(() => this.#overlay(offset, length, put));
    const start = offset - lba * BLOCK_BYTES;
    const block = this.#bounce.take();
    const done = this.#bounce.during(block, () => {
      const read = this.#reads.readBlocks(block, 0, lba, 1);
      const modify = (): MaybePromise<void> => {
        put(block.bytes.subarray(start, start + length));
        return this.#head.append(block, 0, lba, 1);
      };
      return read instanceof Promise ? read.then(modify) : modify();
    });
    if (done instanceof Promise) this.#locks.hold(lba, done);
    return done;
  }

  /** Whole blocks inside the range are unmapped. */
  trim(offset: number, length: number): MaybePromise<void> {
    const { lba, blocks } = cutAtBlocks(offset, length);
    return blocks > 0 ? this.#unmap(lba, blocks) : undefined;
  }

  /** The range reads as zeros: whole blocks are unmapped, parts of mapped blocks are overwritten. */
  zero(offset: number, length: number): MaybePromise<void> {
    const { lba, blocks, before, after } = cutAtBlocks(offset, length);
    const gather = new Gather();
    const parts = [
      () => (before > 0 ? this.#zeroPart(offset, before) : undefined),
      () => (blocks > 0 ? this.#unmap(lba, blocks) : undefined),
      () => (after > 0 ? this.#zeroPart((lba + blocks) * BLOCK_BYTES, after) : undefined),
    ];
    for (const part of parts) if (!gather.add(part)) break;
    return gather.result();
  }

  #zeroPart(offset: number, length: number): MaybePromise<void> {
    const lba = Math.floor(offset / BLOCK_BYTES);
    const hole = this.#locks.conflict(lba, 1) === undefined && this.#map.get(lba) === UNMAPPED;
    return hole ? undefined : this.#overlay(offset, length, (piece) => piece.fill(0));
  }

  #unmap(lba: number, blocks: number): MaybePromise<void> {
    return blocks > UNMAP_STEP_BLOCKS ? this.#unmapInSteps(lba, blocks) : this.#unmapStep(lba, blocks);
  }

  /** A long range, with other work in between: unmapping fragmented data takes a few ns a block. */
  async #unmapInSteps(lba: number, blocks: number): Promise<void> {
    for (let done = 0; done < blocks; done += UNMAP_STEP_BLOCKS) {
      await this.#unmapStep(lba + done, Math.min(UNMAP_STEP_BLOCKS, blocks - done));
      await setImmediate();
    }
  }

  #unmapStep(lba: number, blocks: number): MaybePromise<void> {
    const conflict = this.#locks.conflict(lba, blocks);
    if (conflict !== undefined) return conflict.then(() => this.#unmapStep(lba, blocks));
    const room = this.#head.roomForUnmap();
    if (room !== undefined) return room.then(() => this.#unmapStep(lba, blocks));
    const mapped = this.#map.mappedBlocks;
    this.#map.unmapRun(lba, blocks, this.#table.dropLive);
    // Where nothing was mapped, whatever emptied the range is in the log already, or waits to be.
    if (this.#map.mappedBlocks === mapped) return;
    this.#options.onUnmapped(lba, blocks);
    this.#head.unmap(lba, blocks);
  }
}
