import { type EntryBuffer, HIGH } from './entry-buffer.js';
import type { MapHeap } from './heap.js';
import { CLASS_CAPACITY } from './size-class.js';

/** Below this many elements a loop beats the call of a typed array's own copy. */
const LOOP_MAX = 20;

/** A cursor over the entries of one sparse leaf, in order of block number. Reused, so that looking costs nothing. */
export class SparseLeaf {
  capacity = 0;
  sizeClass = 0;
  #words: Uint32Array = new Uint32Array(0);
  #halves: Uint16Array = new Uint16Array(0);
  #bytes: Uint8Array = new Uint8Array(0);
  #lows = 0;
  #keys = 0;
  #highs = 0;

  open(heap: MapHeap, address: number, sizeClass: number): void {
    const slab = address >>> 16;
    const capacity = CLASS_CAPACITY[sizeClass] as number;
    this.capacity = capacity;
    this.sizeClass = sizeClass;
    this.#words = heap.words[slab] as Uint32Array;
    this.#halves = heap.halves[slab] as Uint16Array;
    this.#bytes = heap.bytes[slab] as Uint8Array;
    this.#lows = (address & 0xffff) + 1;
    this.#keys = (this.#lows + capacity) * 2;
    this.#highs = (this.#lows + capacity) * 4 + capacity * 2;
  }

  start(i: number): number {
    return (this.#halves[this.#keys + i] as number) >>> 4;
  }

  /** The block after the last one of entry i. */
  end(i: number): number {
    const key = this.#halves[this.#keys + i] as number;
    return (key >>> 4) + (1 << (key & 15));
  }

  slot(i: number): number {
    return (this.#words[this.#lows + i] as number) + (this.#bytes[this.#highs + i] as number) * HIGH;
  }

  /** Index of the first of `count` entries that ends after `block`; `count` if there is none. */
  find(block: number, count: number): number {
    const halves = this.#halves;
    const keys = this.#keys;
    const wanted = (block << 4) | 15;
    // Blocks written at random lie evenly, so the search starts where the block would be then, in growing steps.
    let low = 0;
    let high = count;
    let probe = (block * count) >>> 12;
    if (count > 0 && (halves[keys + probe] as number) <= wanted) {
      for (let step = 2; low <= probe && probe < high; step *= 2) {
        if ((halves[keys + probe] as number) > wanted) high = probe;
        else low = probe + 1;
        probe += step;
      }
    } else {
      for (let step = 2; probe >= low && probe < high; step *= 2) {
        if ((halves[keys + probe] as number) <= wanted) low = probe + 1;
        else high = probe;
        probe -= step;
      }
    }
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((halves[keys + middle] as number) <= wanted) low = middle + 1;
      else high = middle;
    }
    return low > 0 && this.end(low - 1) > block ? low - 1 : low;
  }

  /** Moves the entries [from, count) so that the first of them becomes number `to`. */
  shift(from: number, to: number, count: number): void {
    if (from !== to) this.copy(this, from, to, count - from);
  }

  /** Copies `length` entries of `source` from number `from` on to number `to` on. `source` may be this leaf. */
  copy(source: SparseLeaf, from: number, to: number, length: number): void {
    copyElements(source.#words, source.#lows + from, this.#words, this.#lows + to, length);
    copyElements(source.#halves, source.#keys + from, this.#halves, this.#keys + to, length);
    copyElements(source.#bytes, source.#highs + from, this.#bytes, this.#highs + to, length);
  }

  /** Writes the first `length` entries of a buffer from number `to` on. */
  write(buffer: EntryBuffer, to: number, length: number): void {
    copyElements(buffer.lows, 0, this.#words, this.#lows + to, length);
    copyElements(buffer.keys, 0, this.#halves, this.#keys + to, length);
    copyElements(buffer.highs, 0, this.#bytes, this.#highs + to, length);
  }
}

type Elements = Uint32Array | Uint16Array | Uint8Array;

/** memmove, for elements of one type. */
function copyElements<T extends Elements>(
  source: T,
  from: number,
  target: T,
  to: number,
  length: number,
): void {
  if (length > LOOP_MAX) {
    if (source === target) target.copyWithin(to, from, from + length);
    else target.set(source.subarray(from, from + length), to);
  } else if (source === target && from < to) {
    for (let i = length - 1; i >= 0; i--) target[to + i] = source[from + i] as number;
  } else {
    for (let i = 0; i < length; i++) target[to + i] = source[from + i] as number;
  }
}
