/**
 * The way of a request through the volume: which blocks it covers, whole or in part, and where they live. It knows the
 * map, the log's head and the reader; admission, durability and state are the volume's.
 */
import { setImmediate } from 'node:timers/promises';
import { BLOCK_BYTES, SEGMENT_SLOTS } from '../base/limits.js';
import { Gather, type MaybePromise } from '../base/maybe-promise.js';
import type { Extent } from '../device/block-device.js';
import type { Arena } from '../native/arena.js';
import type { SegmentReader } from '../segment/segment-reader.js';
import { BlockLocks } from './block-locks.js';
import { type BlockMap, UNMAPPED } from './block-map.js';
import { BounceBlocks } from './bounce-blocks.js';
import type { HeadLog } from './head-log.js';
import type { SegmentTable } from './segment-table.js';

export interface DataPathOptions {
  readonly map: BlockMap;
  readonly table: SegmentTable;
  readonly reader: SegmentReader;
  readonly head: HeadLog;
  /** The map has changed: blocks from `lba` on were unmapped. */
  onUnmapped(lba: number, blocks: number): void;
}

/** Blocks (1 GiB of them) that are unmapped in one go. */
const UNMAP_STEP_BLOCKS = 2 ** 18;
/** Steps of the map that one BLOCK_STATUS may take: a bound on the time the event loop is held. */
const EXTENT_STEPS_MAX = 65_536;

/** A request cut at block boundaries: a partial first block, whole blocks, a partial last block. */
interface Cut {
  /** First whole block, and how many. */
  readonly lba: number;
  readonly blocks: number;
  /** Bytes before the first whole block, and after the last. A request within one block has only `before`. */
  readonly before: number;
  readonly after: number;
}

function cutAtBlocks(offset: number, length: number): Cut {
  const end = offset + length;
  const first = Math.ceil(offset / BLOCK_BYTES);
  const last = Math.floor(end / BLOCK_BYTES);
  if (last < first) return { lba: first, blocks: 0, before: length, after: 0 };
  return {
    lba: first,
    blocks: last - first,
    before: first * BLOCK_BYTES - offset,
    after: end - last * BLOCK_BYTES,
  };
}

export class DataPath {
  readonly #map: BlockMap;
  readonly #table: SegmentTable;
  readonly #reader: SegmentReader;
  readonly #head: HeadLog;
  readonly #options: DataPathOptions;
  readonly #locks = new BlockLocks();
  readonly #bounce = new BounceBlocks();
  readonly #run = { slot: 0, blocks: 0 };
  readonly #conflict = (lba: number, blocks: number): Promise<void> | undefined =>
    this.#locks.conflict(lba, blocks);

  constructor(options: DataPathOptions) {
    this.#map = options.map;
    this.#table = options.table;
    this.#reader = options.reader;
    this.#head = options.head;
    this.#options = options;
  }

  free(): void {
    this.#bounce.free();
  }

  read(dst: Arena, dstOffset: number, offset: number, length: number): MaybePromise<void> {
    const { lba, blocks, before, after } = cutAtBlocks(offset, length);
    if (before === 0 && after === 0) return this.#readBlocks(dst, dstOffset, lba, blocks);
    const gather = new Gather();
    const whole = dstOffset + before;
    const parts = [
      () => (before > 0 ? this.#readPart(dst, dstOffset, offset, before) : undefined),
      () => (blocks > 0 ? this.#readBlocks(dst, whole, lba, blocks) : undefined),
      () =>
        after > 0
          ? this.#readPart(dst, whole + blocks * BLOCK_BYTES, (lba + blocks) * BLOCK_BYTES, after)
          : undefined,
    ];
    for (const part of parts) if (!gather.add(part)) break;
    return gather.result();
  }

  /** A piece of one block. */
  #readPart(dst: Arena, dstOffset: number, offset: number, length: number): MaybePromise<void> {
    const lba = Math.floor(offset / BLOCK_BYTES);
    const start = offset - lba * BLOCK_BYTES;
    const block = this.#bounce.take();
    const copy = (): void => dst.bytes.set(block.bytes.subarray(start, start + length), dstOffset);
    return this.#withBounce(block, () => {
      const read = this.#readBlocks(block, 0, lba, 1);
      return read instanceof Promise ? read.then(copy) : copy();
    });
  }

  #readBlocks(dst: Arena, dstOffset: number, lba: number, blocks: number): MaybePromise<void> {
    const run = this.#run;
    this.#map.runAt(lba, blocks, run);
    if (run.blocks >= blocks) return this.#readRun(dst, dstOffset, lba, blocks, run.slot);
    const gather = new Gather();
    for (let done = 0; done < blocks; ) {
      this.#map.runAt(lba + done, blocks - done, run);
      const { slot } = run;
      const length = run.blocks;
      const at = done;
      done += length;
      if (!gather.add(() => this.#readRun(dst, dstOffset + at * BLOCK_BYTES, lba + at, length, slot))) break;
    }
    return gather.result();
  }

  /** Blocks that are one hole, or that live in consecutive slot addresses. */
  #readRun(dst: Arena, dstOffset: number, lba: number, blocks: number, slot: number): MaybePromise<void> {
    if (slot === UNMAPPED) {
      dst.bytes.fill(0, dstOffset, dstOffset + blocks * BLOCK_BYTES);
      return;
    }
    const position = slot % SEGMENT_SLOTS;
    const here = Math.min(blocks, SEGMENT_SLOTS - position);
    const segment = this.#table.ofSlot(slot);
    if (here === blocks) return this.#reader.read({ segment, position, blocks, lba, dst, dstOffset });
    const gather = new Gather();
    const first = gather.add(() =>
      this.#reader.read({ segment, position, blocks: here, lba, dst, dstOffset }),
    );
    const rest = dstOffset + here * BLOCK_BYTES;
    if (first) gather.add(() => this.#readRun(dst, rest, lba + here, blocks - here, slot + here));
    return gather.result();
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
    const done = this.#withBounce(block, () => {
      const read = this.#readBlocks(block, 0, lba, 1);
      const modify = (): MaybePromise<void> => {
        put(block.bytes.subarray(start, start + length));
        return this.#head.append(block, 0, lba, 1);
      };
      return read instanceof Promise ? read.then(modify) : modify();
    });
    if (done instanceof Promise) this.#locks.hold(lba, done);
    return done;
  }

  #withBounce(block: Arena, use: () => MaybePromise<void>): MaybePromise<void> {
    let later = false;
    try {
      const done = use();
      if (!(done instanceof Promise)) return;
      later = true;
      return done.finally(() => this.#bounce.give(block));
    } finally {
      if (!later) this.#bounce.give(block);
    }
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

  /** Reads a range and forgets it: it is in the page cache afterwards, and authentic. */
  async warm(offset: number, length: number, scratch: Arena): Promise<void> {
    const last = Math.floor((offset + length - 1) / BLOCK_BYTES);
    const step = Math.floor(scratch.sizeBytes / BLOCK_BYTES);
    for (let lba = Math.floor(offset / BLOCK_BYTES); lba <= last; lba += step) {
      await this.#readBlocks(scratch, 0, lba, Math.min(step, last - lba + 1));
    }
  }

  extents(offset: number, length: number, extentsMax: number): Extent[] {
    const extents: { length: number; hole: boolean }[] = [];
    const run = this.#run;
    const end = offset + length;
    let at = offset;
    for (let steps = 0; at < end && steps < EXTENT_STEPS_MAX; steps++) {
      const lba = Math.floor(at / BLOCK_BYTES);
      this.#map.runAt(lba, Math.ceil(end / BLOCK_BYTES) - lba, run);
      const until = Math.min(end, (lba + run.blocks) * BLOCK_BYTES);
      const hole = run.slot === UNMAPPED;
      const last = extents.at(-1);
      if (last?.hole === hole) last.length += until - at;
      else if (extents.length === extentsMax) break;
      else extents.push({ length: until - at, hole });
      at = until;
    }
    return extents;
  }
}
