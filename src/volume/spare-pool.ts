import { isDiskFull } from '../store/disk-full.js';
import type { Store, StoreFile } from '../store/store.js';
import { FileReserve, overwrite } from './file-reserve.js';

/** How much of the reserve may be used. The last file is what unmaps need on a full disk. */
export type ReserveClaim = 'none' | 'all-but-one' | 'all';

export interface SparePoolOptions {
  readonly store: Store;
  /** Bytes of a whole segment file, and of a file that takes any one run of changes to the map. */
  readonly segmentBytes: number;
  readonly mapBytes: number;
  readonly sparesMax: number;
  readonly reserveMax: number;
}

/** A checkpoint writes one new map file, and only then lets go of the one before. */
const MAP_RESERVE_FILES = 2;

/**
 * Preallocated files that wait to be used. Spares become segments, and save the cost of growing files. The reserve is
 * touched only for work that frees space or keeps promises on a full disk: unmaps, compaction, map files.
 */
export class SparePool {
  readonly #store: Store;
  readonly #reserveMax: number;
  readonly #spares: FileReserve;
  readonly #reserve: FileReserve;
  readonly #mapReserve: FileReserve;

  constructor({ store, segmentBytes, mapBytes, sparesMax, reserveMax }: SparePoolOptions) {
    this.#store = store;
    this.#reserveMax = reserveMax;
    this.#spares = new FileReserve(store, 'spare', segmentBytes, sparesMax);
    this.#reserve = new FileReserve(store, 'reserve', segmentBytes, reserveMax);
    this.#mapReserve = new FileReserve(store, 'reserve-map', mapBytes, MAP_RESERVE_FILES);
  }

  /** Bytes that a map file of the reserve can take. */
  get mapBytes(): number {
    return this.#mapReserve.fileBytes;
  }

  async adopt(names: readonly string[]): Promise<void> {
    for (const reserve of [this.#mapReserve, this.#reserve, this.#spares]) await reserve.adopt(names);
  }

  /** Bytes of the whole reserve. */
  get reserveBytes(): number {
    return this.#reserveMax * this.#reserve.fileBytes + MAP_RESERVE_FILES * this.#mapReserve.fileBytes;
  }

  /** Brings the reserve up to its size; false where the disk has no room for all of it. */
  async fillReserve(): Promise<boolean> {
    if (!(await this.#mapReserve.fill())) return false;
    while (!this.#reserve.complete && this.#spares.count > 0) await this.#spares.giveTo(this.#reserve);
    return this.#reserve.fill();
  }

  /** An open, allocated segment file named `name`: a spare, a new one, or one of the reserve where the disk is full. */
  async take(name: string, claim: ReserveClaim): Promise<StoreFile> {
    const spare = await this.#spares.take(name);
    if (spare !== undefined) return spare;
    try {
      return await this.#store.create(name, this.#reserve.fileBytes);
    } catch (error) {
      const reserved = isDiskFull(error) && this.#allows(claim) ? await this.#reserve.take(name) : undefined;
      if (reserved === undefined) throw error;
      return reserved;
    }
  }

  #allows(claim: ReserveClaim): boolean {
    if (claim === 'none') return false;
    return claim === 'all' || this.#reserve.count >= Math.min(2, this.#reserveMax);
  }

  /** A map file of the reserve, renamed to `name`; it keeps its length. Undefined where none is left. */
  takeForMap(name: string): Promise<StoreFile | undefined> {
    return this.#mapReserve.take(name);
  }

  /** Afterwards no file here holds anything under another DEK than this one. */
  async purge(dekId: number): Promise<void> {
    await this.#spares.removeForeign(dekId);
    await this.#reserve.zeroForeign(dekId);
    await this.#mapReserve.zeroForeign(dekId);
  }

  /** Overwrites a file with zeros, durably, and removes it: plaintext of a volume that is to have none. */
  async erase(name: string): Promise<void> {
    await overwrite(this.#store, name);
    await this.#store.remove(name);
  }

  /** Takes in the file of a dead segment, or removes it. What is not under the sealing DEK is not `recyclable`. */
  async put(name: string, recyclable: boolean): Promise<void> {
    if (recyclable && ((await this.#reserve.put(name)) || (await this.#spares.put(name)))) return;
    await this.#store.remove(name);
  }

  /** Takes in a map file that no root names any more, or removes it. */
  async putMap(name: string): Promise<void> {
    if (!(await this.#mapReserve.put(name))) await this.#store.remove(name);
  }
}
