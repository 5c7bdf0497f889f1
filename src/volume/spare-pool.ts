import { isDiskFull } from '../store/disk-full.js';
import type { Store, StoreFile } from '../store/store.js';
import { FileReserve } from './file-reserve.js';

/** How much of the reserve may be used. The last file is what unmaps need on a full disk. */
export type ReserveClaim = 'none' | 'all-but-one' | 'all';

/**
 * What becomes of a file that is given up. To `recycle` is only for what is blank or under the sealing DEK; any other is
 * worth an overwriting where the reserve is not whole, since on a full disk the space of a removed file may be another's.
 */
export type FileUse = 'recycle' | 'overwrite' | 'remove';

export interface SparePoolOptions {
  readonly store: Store;
  /** Bytes of a whole segment file, and of a file that takes any one run of changes to the map. */
  readonly segmentBytes: number;
  readonly mapBytes: number;
  readonly sparesMax: number;
  readonly reserveMax: number;
  /** The DEK that seals what is new. */
  sealing(): number;
}

/** A checkpoint writes one new map file, and only then lets go of the one before. */
const MAP_RESERVE_FILES = 2;

/** Bytes of a whole reserve. */
export function reserveBytes({
  segmentBytes,
  mapBytes,
  reserveMax,
}: Pick<SparePoolOptions, 'segmentBytes' | 'mapBytes' | 'reserveMax'>): number {
  return reserveMax * segmentBytes + MAP_RESERVE_FILES * mapBytes;
}

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

  constructor({ store, segmentBytes, mapBytes, sparesMax, reserveMax, sealing }: SparePoolOptions) {
    this.#store = store;
    this.#reserveMax = reserveMax;
    const reserve = (prefix: string, fileBytes: number, max: number): FileReserve =>
      new FileReserve({ store, prefix, fileBytes, max, sealing });
    this.#spares = reserve('spare', segmentBytes, sparesMax);
    this.#reserve = reserve('reserve', segmentBytes, reserveMax);
    this.#mapReserve = reserve('reserve-map', mapBytes, MAP_RESERVE_FILES);
  }

  /** Bytes that a map file of the reserve can take. */
  get mapBytes(): number {
    return this.#mapReserve.fileBytes;
  }

  /** Every map file of the reserve is here: none that a root names is one of them. */
  get mapsAreWhole(): boolean {
    return this.#mapReserve.complete;
  }

  async adopt(names: readonly string[]): Promise<void> {
    for (const reserve of [this.#mapReserve, this.#reserve, this.#spares]) await reserve.adopt(names);
  }

  /** Bytes of the whole reserve. */
  get reserveBytes(): number {
    const [segmentBytes, mapBytes] = [this.#reserve.fileBytes, this.#mapReserve.fileBytes];
    return reserveBytes({ segmentBytes, mapBytes, reserveMax: this.#reserveMax });
  }

  /** Brings the reserve up to its size; false where the disk has no room for all of it. */
  async fillReserve(): Promise<boolean> {
    if (!(await this.#mapReserve.fill())) return false;
    while (!this.#reserve.complete && this.#spares.count > 0) await this.#spares.giveTo(this.#reserve);
    return this.#reserve.fill();
  }

  /** An open, allocated file named `name` for a segment under DEK `dekId`: a spare, a new one, or one of the reserve where the disk is full. */
  async take(name: string, claim: ReserveClaim, dekId: number): Promise<StoreFile> {
    const spare = await this.#spares.take(name, dekId);
    if (spare !== undefined) return spare;
    try {
      return await this.#store.create(name, this.#reserve.fileBytes);
    } catch (error) {
      if (!isDiskFull(error) || !this.#allows(claim)) throw error;
      const reserved = await this.#reserve.take(name, dekId);
      if (reserved === undefined) throw error;
      return reserved;
    }
  }

  #allows(claim: ReserveClaim): boolean {
    if (claim === 'none') return false;
    return claim === 'all' || this.#reserve.count >= Math.min(2, this.#reserveMax);
  }

  /** A map file of the reserve, renamed to `name`; it keeps its length. Undefined where none is left. */
  takeForMap(name: string, dekId: number): Promise<StoreFile | undefined> {
    return this.#mapReserve.take(name, dekId);
  }

  /** Afterwards no file here holds anything under another DEK than the sealing one. */
  async purge(): Promise<void> {
    await this.#spares.purge('remove');
    await this.#reserve.purge('overwrite');
    await this.#mapReserve.purge('overwrite');
  }

  /** Takes in the file of a dead segment, or removes it. */
  async put(name: string, use: FileUse): Promise<void> {
    if (use === 'recycle' && ((await this.#reserve.put(name)) || (await this.#spares.put(name)))) return;
    if (use === 'overwrite' && (await this.#reserve.putOverwritten(name))) return;
    await this.#store.remove(name);
  }

  /** Takes in a map file that no root names any more, or removes it. */
  async putMap(name: string): Promise<void> {
    if (!(await this.#mapReserve.put(name))) await this.#store.remove(name);
  }
}
