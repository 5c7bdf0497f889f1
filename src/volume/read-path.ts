/**
 * The way of a read through a map: which blocks it covers, whole or in part, and where they live. The live volume and each
 * snapshot that is read have one, over their own maps.
 */
import {
  BLOCK_BYTES,
  EXTENT_BLOCKS_AT_ONCE_MAX,
  EXTENT_BLOCKS_PER_STEP,
  EXTENT_STEPS_PER_TURN_MAX,
  SEGMENT_SLOTS,
} from '../base/limits.js';
import { Gather, type MaybePromise } from '../base/maybe-promise.js';
import type { Extent, StepBudget } from '../device/block-device.js';
import type { Arena } from '../native/arena.js';
import type { ReadRun, SegmentReader } from '../segment/segment-reader.js';
import { type BlockMap, UNMAPPED } from './block-map.js';
import type { BounceBlocks } from './bounce-blocks.js';
import type { SegmentTable } from './segment-table.js';

export interface ReadPathOptions {
  readonly map: BlockMap;
  readonly table: SegmentTable;
  readonly reader: SegmentReader;
  readonly bounce: BounceBlocks;
}

/** A request cut at block boundaries: a partial first block, whole blocks, a partial last block. */
export interface BlockCut {
  /** First whole block, and how many. */
  readonly lba: number;
  readonly blocks: number;
  /** Bytes before the first whole block, and after the last. A request within one block has only `before`. */
  readonly before: number;
  readonly after: number;
}

export function cutAtBlocks(offset: number, length: number): BlockCut {
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

export class ReadPath {
  readonly #map: BlockMap;
  readonly #table: SegmentTable;
  readonly #reader: SegmentReader;
  readonly #bounce: BounceBlocks;
  readonly #run = { slot: 0, blocks: 0 };

  constructor(options: ReadPathOptions) {
    this.#map = options.map;
    this.#table = options.table;
    this.#reader = options.reader;
    this.#bounce = options.bounce;
  }

  read(dst: Arena, dstOffset: number, offset: number, length: number): MaybePromise<void> {
    const { lba, blocks, before, after } = cutAtBlocks(offset, length);
    if (before === 0 && after === 0) return this.readBlocks(dst, dstOffset, lba, blocks);
    const gather = new Gather();
    const whole = dstOffset + before;
    const parts = [
      () => (before > 0 ? this.#readPart(dst, dstOffset, offset, before) : undefined),
      () => (blocks > 0 ? this.readBlocks(dst, whole, lba, blocks) : undefined),
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
    return this.#bounce.during(block, () => {
      const read = this.readBlocks(block, 0, lba, 1);
      return read instanceof Promise ? read.then(copy) : copy();
    });
  }

  /** Whole blocks. */
  readBlocks(dst: Arena, dstOffset: number, lba: number, blocks: number): MaybePromise<void> {
    const run = this.#run;
    this.#map.runAt(lba, blocks, run);
    const { slot } = run;
    const whole = run.blocks >= blocks && (slot % SEGMENT_SLOTS) + blocks <= SEGMENT_SLOTS;
    if (whole && slot !== UNMAPPED) {
      const segment = this.#table.ofSlot(slot);
      return this.#reader.read({ segment, position: slot % SEGMENT_SLOTS, blocks, lba, dst, dstOffset });
    }
    const runs: ReadRun[] = [];
    for (let done = 0; done < blocks; done += run.blocks) {
      this.#map.runAt(lba + done, blocks - done, run);
      this.#collect(runs, dst, dstOffset + done * BLOCK_BYTES, lba + done);
    }
    return runs.length === 0 ? undefined : this.#reader.readAll(runs);
  }

  /** The run that was found: a hole is filled, slots are cut where one segment ends and another begins. */
  #collect(runs: ReadRun[], dst: Arena, dstOffset: number, lba: number): void {
    const { slot, blocks } = this.#run;
    if (slot === UNMAPPED) {
      dst.bytes.fill(0, dstOffset, dstOffset + blocks * BLOCK_BYTES);
      return;
    }
    for (let done = 0; done < blocks; ) {
      const position = (slot + done) % SEGMENT_SLOTS;
      const here = Math.min(blocks - done, SEGMENT_SLOTS - position);
      const segment = this.#table.ofSlot(slot + done);
      const at = dstOffset + done * BLOCK_BYTES;
      runs.push({ segment, position, blocks: here, lba: lba + done, dst, dstOffset: at });
      done += here;
    }
  }

  /** A step is a run of the map: a hole, or blocks in consecutive slots. Long ones count for more, as they are walked too. */
  extents(
    offset: number,
    length: number,
    extentsMax: number,
    steps: StepBudget = { left: EXTENT_STEPS_PER_TURN_MAX },
  ): Extent[] {
    const extents: { length: number; hole: boolean }[] = [];
    const run = this.#run;
    const end = offset + length;
    let at = offset;
    while (at < end && (steps.left > 0 || extents.length === 0)) {
      const lba = Math.floor(at / BLOCK_BYTES);
      this.#map.runAt(lba, Math.min(Math.ceil(end / BLOCK_BYTES) - lba, EXTENT_BLOCKS_AT_ONCE_MAX), run);
      steps.left -= 1 + Math.floor(run.blocks / EXTENT_BLOCKS_PER_STEP);
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
