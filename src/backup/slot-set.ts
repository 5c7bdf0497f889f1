/** Positions of one segment, as a bitmap: bit p % 8 of byte p / 8. */
import { SEGMENT_SLOTS } from '../base/limits.js';

export interface PositionRun {
  readonly position: number;
  readonly count: number;
}

const FIRST_BYTES = 16;

export class SlotSet {
  #bits: Uint8Array = new Uint8Array(FIRST_BYTES);
  /** The highest position + 1; 0 while there is none. */
  slots = 0;
  count = 0;
  /** Positions below each byte, once somebody asked for a rank. */
  #ranks: Uint16Array | undefined;

  /** Takes over a bitmap of ceil(slots / 8) bytes. */
  static of(bits: Uint8Array, slots: number): SlotSet {
    const set = new SlotSet();
    set.#bits = bits;
    set.slots = slots;
    for (const byte of bits) set.count += ONES[byte];
    return set;
  }

  add(position: number, count: number): void {
    const end = position + count;
    if (!(position >= 0) || end > SEGMENT_SLOTS) throw new RangeError(`slots ${position} to ${end}`);
    this.#reach(end);
    for (let at = position; at < end; at++) {
      const mask = 1 << (at & 7);
      if ((this.#bits[at >> 3] & mask) !== 0) continue;
      this.#bits[at >> 3] |= mask;
      this.count++;
    }
    this.slots = Math.max(this.slots, end);
    this.#ranks = undefined;
  }

  has(position: number): boolean {
    return position < this.slots && (this.#bits[position >> 3] & (1 << (position & 7))) !== 0;
  }

  /** How many are below a position. */
  rank(position: number): number {
    if (this.#ranks === undefined) {
      this.#ranks = new Uint16Array(this.#bits.length + 1);
      for (let i = 0; i < this.#bits.length; i++) this.#ranks[i + 1] = this.#ranks[i] + ONES[this.#bits[i]];
    }
    const partial = (this.#bits[position >> 3] ?? 0) & ((1 << (position & 7)) - 1);
    return this.#ranks[Math.min(position >> 3, this.#bits.length)] + ONES[partial];
  }

  /** The runs of positions from `from` on and below `end`, in order. */
  *runs(from = 0, end = this.slots): Generator<PositionRun> {
    let position = from;
    const stop = Math.min(end, this.slots);
    while (position < stop) {
      const byte = this.#bits[position >> 3];
      if (byte === 0 && (position & 7) === 0) {
        position += 8;
        continue;
      }
      if (!this.has(position)) {
        position++;
        continue;
      }
      let until = position + 1;
      while (until < stop && this.has(until))
        until += (until & 7) === 0 && this.#bits[until >> 3] === 0xff ? Math.min(8, stop - until) : 1;
      yield { position, count: until - position };
      position = until;
    }
  }

  /** ceil(slots / 8) bytes. */
  bitmap(): Uint8Array {
    return this.#bits.subarray(0, Math.ceil(this.slots / 8));
  }

  #reach(slots: number): void {
    const bytes = Math.ceil(slots / 8);
    if (bytes <= this.#bits.length) return;
    const grown = new Uint8Array(Math.min(SEGMENT_SLOTS / 8, Math.max(bytes, 4 * this.#bits.length)));
    grown.set(this.#bits);
    this.#bits = grown;
  }
}

const ONES = Uint8Array.from({ length: 256 }, (_, byte) => {
  let ones = 0;
  for (let rest = byte; rest !== 0; rest &= rest - 1) ones++;
  return ones;
});
