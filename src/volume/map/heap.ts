import { SealbdError } from '../../base/errors.js';
import { type LeafDirectory, NO_CHUNK } from './directory.js';
import { CLASS_WORDS, DENSE_CLASS, DENSE_WORDS } from './size-class.js';

export const SLAB_WORDS = 65_536;
const SLAB_BYTES = SLAB_WORDS * 4;
const SLABS_MAX = 65_536;
/** Empty slabs kept for the next need, so that their pages stay warm. */
const SPARE_SLABS_MAX = 2;
/**
 * Dead memory is kept below one part in this many. So many slabs may be emptied for each one taken: slabs that
 * are that dead then give back as much as was taken.
 */
const DEAD_PART = 10;
/** Entries of all free lists below which it is not worth looking for void ones. */
const FREE_ENTRIES_MIN = 4096;

const NO_WORDS = new Uint32Array(0);
const NO_HALVES = new Uint16Array(0);
const NO_BYTES = new Uint8Array(0);

/** Marks the header of a chunk that is no longer referred to. */
const DEAD = 0x8000_0000;
/** 2^32: the weight of a slab's generation in the free lists. */
const GENERATION = 4_294_967_296;

/**
 * The memory of the block map: chunks of few sizes in slabs outside the JavaScript heap. A chunk comes from the
 * free list of its size, else from the end of the slab being filled. Free lists alone would not do: as a volume
 * fills at random, all leaves outgrow one size after another and would leave the smaller chunks behind for ever.
 * So once more than a tenth of the memory is dead, the emptiest slabs are copied out and given back.
 *
 * A chunk starts with a header word: dead (1 bit), size class (9), leaf (22). An address is slab << 16 | word;
 * word 0 of a slab is never used, so that 0 is no chunk. Free lists are not searched when a slab goes away:
 * an entry carries the generation of its slab, and is void once that has grown.
 */
export class MapHeap {
  readonly words: Uint32Array[] = [];
  readonly halves: Uint16Array[] = [];
  readonly bytes: Uint8Array[] = [];
  readonly #directory: LeafDirectory;
  /** By slab: words of live chunks, or -1 where the slab is not in use. */
  readonly #live: number[] = [];
  /** By slab: words handed out. */
  readonly #used: number[] = [];
  /** By slab: grows when all chunks in it cease to exist. */
  readonly #generation: number[] = [];
  /** By size class: generation * 2^32 + address of dead chunks. */
  readonly #free: number[][] = Array.from({ length: DENSE_CLASS + 1 }, () => []);
  #freeEntries = 0;
  #freeEntriesMax = FREE_ENTRIES_MIN;
  readonly #spares: number[] = [];
  readonly #absent: number[] = [];
  #current = -1;
  #slabs = 0;
  #liveWords = 0;
  /** Steps of compaction still due; one is made for each change of the map, so that none takes long. */
  #compactions = 0;

  constructor(directory: LeafDirectory) {
    this.#directory = directory;
  }

  get memoryBytes(): number {
    return (this.#slabs + this.#spares.length) * SLAB_BYTES + this.#directory.bytes;
  }

  /**
   * Makes the next allocations of up to `words` in all safe: they will neither move chunks nor exceed
   * `bytesMax`. Chunks move in here only. Throws ENOMEM.
   */
  reserve(words: number, directoryBytes: number, bytesMax: number): void {
    if (this.#compactions > 0) this.#compact();
    const room = this.#current < 0 ? 0 : SLAB_WORDS - (this.#used[this.#current] as number);
    if (words <= room && directoryBytes === 0) return;
    // The tail of a slab that is too short for a chunk is lost.
    const slabs = words <= room ? 0 : Math.ceil(words / (SLAB_WORDS - DENSE_WORDS));
    const bytes = (this.#slabs + slabs) * SLAB_BYTES + this.#directory.bytes + directoryBytes;
    if (bytes > bytesMax || this.#slabs + slabs > SLABS_MAX) {
      throw new SealbdError('ENOMEM', `the block map would grow to ${bytes} bytes; its limit is ${bytesMax}`);
    }
  }

  /** The address of a new chunk of `sizeClass`, its header written, for `leaf`. */
  allocate(leaf: number, sizeClass: number): number {
    const size = CLASS_WORDS[sizeClass] as number;
    let address = this.#reuse(sizeClass);
    if (address === NO_CHUNK) {
      let slab = this.#current;
      if (slab < 0 || (this.#used[slab] as number) + size > SLAB_WORDS) slab = this.#takeSlab();
      const at = this.#used[slab] as number;
      this.#used[slab] = at + size;
      address = ((slab << 16) | at) >>> 0;
    }
    const slab = address >>> 16;
    this.#live[slab] = (this.#live[slab] as number) + size;
    this.#liveWords += size;
    (this.words[slab] as Uint32Array)[address & 0xffff] = (sizeClass << 22) | leaf;
    return address;
  }

  free(address: number, sizeClass: number): void {
    const slab = address >>> 16;
    const size = CLASS_WORDS[sizeClass] as number;
    const live = (this.#live[slab] as number) - size;
    this.#live[slab] = live;
    this.#liveWords -= size;
    (this.words[slab] as Uint32Array)[address & 0xffff] = DEAD | (sizeClass << 22);
    if (live === 0) this.#release(slab);
    else {
      (this.#free[sizeClass] as number[]).push((this.#generation[slab] as number) * GENERATION + address);
      this.#freeEntries += 1;
    }
  }

  #reuse(sizeClass: number): number {
    const list = this.#free[sizeClass] as number[];
    for (let entry = list.pop(); entry !== undefined; entry = list.pop()) {
      this.#freeEntries -= 1;
      if (this.#isCurrent(entry)) return entry % GENERATION;
    }
    return NO_CHUNK;
  }

  /** Whether the slab of a free list's entry is the one that it was. */
  #isCurrent(entry: number): boolean {
    const address = entry % GENERATION;
    return this.#generation[address >>> 16] === (entry - address) / GENERATION;
  }

  /** Drops void entries of the free lists, once they may be the most of them. */
  #purge(): void {
    if (this.#freeEntries <= this.#freeEntriesMax) return;
    this.#freeEntries = 0;
    for (let i = 0; i < this.#free.length; i++) {
      const list = (this.#free[i] as number[]).filter((entry) => this.#isCurrent(entry));
      this.#free[i] = list;
      this.#freeEntries += list.length;
    }
    this.#freeEntriesMax = FREE_ENTRIES_MIN + 2 * this.#freeEntries;
  }

  #takeSlab(): number {
    const previous = this.#current;
    this.#current = -1;
    if (previous >= 0 && this.#live[previous] === 0) this.#release(previous);
    let slab = this.#spares.pop();
    if (slab === undefined) {
      slab = this.#absent.pop() ?? this.words.length;
      const buffer = new ArrayBuffer(SLAB_BYTES);
      this.words[slab] = new Uint32Array(buffer);
      this.halves[slab] = new Uint16Array(buffer);
      this.bytes[slab] = new Uint8Array(buffer);
      this.#generation[slab] ??= 0;
    }
    this.#live[slab] = 0;
    this.#used[slab] = 1;
    this.#slabs += 1;
    this.#current = slab;
    this.#compactions = DEAD_PART;
    return slab;
  }

  /** Nothing in the slab is live. */
  #release(slab: number): void {
    this.#generation[slab] = (this.#generation[slab] as number) + 1;
    if (slab === this.#current) {
      this.#used[slab] = 1;
      return;
    }
    this.#live[slab] = -1;
    this.#slabs -= 1;
    if (this.#spares.length < SPARE_SLABS_MAX) {
      this.#spares.push(slab);
      return;
    }
    this.words[slab] = NO_WORDS;
    this.halves[slab] = NO_HALVES;
    this.bytes[slab] = NO_BYTES;
    this.#absent.push(slab);
  }

  /** One step: empties the emptiest slab, if too much memory is dead. */
  #compact(): void {
    this.#compactions -= 1;
    const total = this.#slabs * SLAB_WORDS;
    // The slab being filled is not dead, it is just not full yet.
    const room = SLAB_WORDS - (this.#used[this.#current] as number);
    const victim = total - room - this.#liveWords > total / DEAD_PART ? this.#emptiest() : -1;
    if (victim >= 0) this.#evacuate(victim);
    else this.#compactions = 0;
    if (this.#compactions === 0) this.#purge();
  }

  #emptiest(): number {
    let best = -1;
    let bestLive = SLAB_WORDS;
    for (let slab = 0; slab < this.#live.length; slab++) {
      const live = this.#live[slab] as number;
      if (live >= 0 && live < bestLive && slab !== this.#current) {
        best = slab;
        bestLive = live;
      }
    }
    return best;
  }

  #evacuate(slab: number): void {
    const words = this.words[slab] as Uint32Array;
    const used = this.#used[slab] as number;
    // Nothing may be put back into the slab.
    this.#generation[slab] = (this.#generation[slab] as number) + 1;
    for (let at = 1; at < used; ) {
      const header = words[at] as number;
      const sizeClass = (header >>> 22) & 0x1ff;
      const size = CLASS_WORDS[sizeClass] as number;
      if (header < DEAD) {
        const leaf = header & 0x3fffff;
        const to = this.allocate(leaf, sizeClass);
        const target = this.words[to >>> 16] as Uint32Array;
        const offset = to & 0xffff;
        for (let i = 1; i < size; i++) target[offset + i] = words[at + i] as number;
        this.#directory.relocate(leaf, to);
        this.#live[slab] = (this.#live[slab] as number) - size;
        this.#liveWords -= size;
      }
      at += size;
    }
    this.#release(slab);
  }
}
