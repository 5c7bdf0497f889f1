/**
 * Map entries of one chunk (docs/FORMAT.md, "Map files"): LEB128 varints `gap`, `run`, `where`. Pure.
 */
import { BLOCKS_MAX, SLOT_ADDRESS_END } from '../../base/limits.js';
import { UNMAPPED } from '../map/dense-leaf.js';
import type { RunBatch } from './run-batch.js';

/** A gap and a run below 2^35 and a slot below 2^42. */
export const MAP_ENTRY_BYTES_MAX = 5 + 5 + 6;

/** Writes `value` (0 .. 2^53 - 1) at `at`, and returns where it ends. */
export function putVarint(bytes: Uint8Array, at: number, value: number): number {
  let rest = value;
  let position = at;
  // The bit operators see the low 32 bits only, but those exactly.
  while (rest >= 0x80) {
    bytes[position++] = (rest & 0x7f) | 0x80;
    rest = rest < 0x8000_0000 ? rest >>> 7 : Math.floor(rest / 128);
  }
  bytes[position++] = rest;
  return position;
}

/** Writes one entry and returns where it ends. `previousEnd` is 0 for the first entry of a chunk. */
export function putMapEntry(
  bytes: Uint8Array,
  at: number,
  previousEnd: number,
  lba: number,
  blocks: number,
  slot: number,
): number {
  const afterGap = putVarint(bytes, at, lba - previousEnd);
  const afterRun = putVarint(bytes, afterGap, blocks);
  return putVarint(bytes, afterRun, slot === UNMAPPED ? 0 : slot + 1);
}

/** Reads the entries of a chunk, and checks each against its limits and its predecessor. */
export class MapEntryDecoder {
  readonly #bytes: Uint8Array;
  readonly #allowUnmapped: boolean;
  readonly #fail: (problem: string) => Error;
  #at = 0;
  #end = 0;
  #atLeast: number;

  /** `atLeast` is the end of the last entry of the chunk before. */
  constructor(
    payload: Uint8Array,
    atLeast: number,
    allowUnmapped: boolean,
    fail: (problem: string) => Error,
  ) {
    this.#bytes = payload;
    this.#atLeast = atLeast;
    this.#allowUnmapped = allowUnmapped;
    this.#fail = fail;
  }

  /** The end of the last entry read. */
  get end(): number {
    return this.#atLeast;
  }

  /** Fills the batch as far as there are entries, and says whether there were any. */
  fill(batch: RunBatch): boolean {
    batch.count = 0;
    while (this.#at < this.#bytes.length && batch.count < batch.capacity) {
      const lba = this.#end + this.#varint();
      const blocks = this.#varint();
      const where = this.#varint();
      if (lba < this.#atLeast) throw this.#fail('entries out of order');
      if (blocks === 0) throw this.#fail('an empty entry');
      if (lba + blocks > BLOCKS_MAX) throw this.#fail('an entry beyond the largest volume');
      if (where === 0 && !this.#allowUnmapped) throw this.#fail('a tombstone in the first run');
      if (where !== 0 && where - 1 + blocks > SLOT_ADDRESS_END) throw this.#fail('a slot out of range');
      this.#end = lba + blocks;
      this.#atLeast = this.#end;
      batch.push(lba, blocks, where - 1);
    }
    return batch.count !== 0;
  }

  #varint(): number {
    const bytes = this.#bytes;
    const end = bytes.length;
    let at = this.#at;
    let value = 0;
    let shift = 0;
    for (; shift < 28; shift += 7) {
      if (at === end) throw this.#fail('an entry cut short');
      const byte = bytes[at++] as number;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (byte === 0 && shift !== 0) throw this.#fail('a number with needless zeros');
        this.#at = at;
        return value;
      }
    }
    for (let weight = 2 ** 28; weight < 2 ** 49; weight *= 128) {
      if (at === end) throw this.#fail('an entry cut short');
      const byte = bytes[at++] as number;
      value += (byte & 0x7f) * weight;
      if (byte < 0x80) {
        if (byte === 0) throw this.#fail('a number with needless zeros');
        this.#at = at;
        return value;
      }
    }
    throw this.#fail('a number above 2^49');
  }
}
