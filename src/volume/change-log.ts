import { setImmediate } from 'node:timers/promises';
import { UNMAPPED } from './map/dense-leaf.js';
import { mergeAll } from './map-file/merge.js';
import type { RunBatch } from './map-file/run-batch.js';
import { sortChanges } from './map-file/sort-changes.js';

const CHUNK_CHANGES = 4096;
/** Block counts are kept in 32 bits; longer unmaps become several changes. */
const BLOCKS_PER_CHANGE_MAX = 2 ** 31;
/** Batches of the result between turns for other work. */
const BATCHES_PER_TURN = 4;
const HIGH = 2 ** 32;
const NO_SLOT_HIGH = 0xff;
const NO_SLOT_LOW = 0xffff_ffff;

/** 4096 changes in 14 bytes each. */
class Chunk {
  readonly lbaLow = new Uint32Array(CHUNK_CHANGES);
  readonly lbaHigh = new Uint8Array(CHUNK_CHANGES);
  readonly blocks = new Uint32Array(CHUNK_CHANGES);
  readonly slotLow = new Uint32Array(CHUNK_CHANGES);
  readonly slotHigh = new Uint8Array(CHUNK_CHANGES);
  count = 0;
}

/**
 * What became of the map since a cut: changes in the order in which they were made, and their net effect as sorted
 * runs.
 */
export class ChangeLog {
  readonly #chunks: Chunk[] = [];
  #last: Chunk | undefined;
  #frozen = false;
  // Where the next change would continue the last one.
  #nextLba = -1;
  #nextSlot = UNMAPPED;

  /** Changes kept: one that continues the one before is part of it. */
  get changes(): number {
    const last = this.#last;
    return last === undefined ? 0 : (this.#chunks.length - 1) * CHUNK_CHANGES + last.count;
  }

  get memoryBytes(): number {
    return this.#chunks.length * CHUNK_CHANGES * 14;
  }

  /** Notes that `blocks` blocks from `lba` on were mapped to `slot` and what follows it, or unmapped. */
  append(lba: number, blocks: number, slot: number): void {
    if (this.#frozen) throw new Error('the change log is frozen');
    if (blocks > BLOCKS_PER_CHANGE_MAX) {
      const rest = slot === UNMAPPED ? UNMAPPED : slot + BLOCKS_PER_CHANGE_MAX;
      this.append(lba, BLOCKS_PER_CHANGE_MAX, slot);
      this.append(lba + BLOCKS_PER_CHANGE_MAX, blocks - BLOCKS_PER_CHANGE_MAX, rest);
      return;
    }
    if (lba !== this.#nextLba || slot !== this.#nextSlot || !this.#extend(blocks))
      this.#push(lba, blocks, slot);
    this.#nextLba = lba + blocks;
    this.#nextSlot = slot === UNMAPPED ? UNMAPPED : slot + blocks;
  }

  /** No more changes are taken. */
  freeze(): void {
    this.#frozen = true;
  }

  /**
   * The net effect: sorted runs that do not overlap, the last change of a block winning. Taking the first freezes
   * the log. Other work gets its turn about every millisecond.
   */
  async *sortedRuns(): AsyncGenerator<RunBatch, void> {
    this.freeze();
    let batches = 0;
    for await (const batch of mergeAll(this.#chunks.map((chunk) => sorted(chunk)))) {
      yield batch;
      batches += 1;
      if (batches % BATCHES_PER_TURN === 0) await setImmediate();
    }
  }

  #extend(blocks: number): boolean {
    const chunk = this.#last;
    if (chunk === undefined) return false;
    const total = (chunk.blocks[chunk.count - 1] as number) + blocks;
    if (total > BLOCKS_PER_CHANGE_MAX) return false;
    chunk.blocks[chunk.count - 1] = total;
    return true;
  }

  #push(lba: number, blocks: number, slot: number): void {
    let chunk = this.#last;
    if (chunk === undefined || chunk.count === CHUNK_CHANGES) {
      chunk = new Chunk();
      this.#last = chunk;
      this.#chunks.push(chunk);
    }
    const i = chunk.count++;
    chunk.lbaLow[i] = lba;
    chunk.lbaHigh[i] = lba / HIGH;
    chunk.blocks[i] = blocks;
    chunk.slotLow[i] = slot === UNMAPPED ? NO_SLOT_LOW : slot;
    chunk.slotHigh[i] = slot === UNMAPPED ? NO_SLOT_HIGH : slot / HIGH;
  }
}

async function* sorted(chunk: Chunk): AsyncGenerator<RunBatch, void> {
  await setImmediate();
  const { count } = chunk;
  const lba = new Float64Array(count);
  const slot = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    lba[i] = (chunk.lbaLow[i] as number) + (chunk.lbaHigh[i] as number) * HIGH;
    const none = chunk.slotHigh[i] === NO_SLOT_HIGH && chunk.slotLow[i] === NO_SLOT_LOW;
    slot[i] = none ? UNMAPPED : (chunk.slotLow[i] as number) + (chunk.slotHigh[i] as number) * HIGH;
  }
  yield sortChanges(lba, chunk.blocks, slot);
}
