import { errnoOf } from '../base/errors.js';
import { addon } from '../native/addon.js';
import type { Store, StoreFile } from '../store/store.js';

/** How much of the reserve may be used. The last file is what a checkpoint needs to let go of anything. */
export type ReserveClaim = 'none' | 'all-but-one' | 'all';

export const SPARE_PATTERN = /^(spare|reserve)-[0-9]+$/;

/**
 * Preallocated files that wait to become segments. Spares save the cost of growing files; the reserve is touched only
 * for work that frees space or keeps promises on a full disk (unmaps, compaction, map files).
 */
export class SparePool {
  readonly #store: Store;
  readonly #fileBytes: number;
  readonly #sparesMax: number;
  readonly #reserveMax: number;
  readonly #spares: string[] = [];
  readonly #reserve: string[] = [];
  #nextNumber = 0;

  constructor(store: Store, fileBytes: number, sparesMax: number, reserveMax: number) {
    this.#store = store;
    this.#fileBytes = fileBytes;
    this.#sparesMax = sparesMax;
    this.#reserveMax = reserveMax;
  }

  get spares(): number {
    return this.#spares.length;
  }

  get reserve(): number {
    return this.#reserve.length;
  }

  /** Takes over the files that an earlier run left; those of another size go. */
  async adopt(names: readonly string[]): Promise<void> {
    for (const name of names) {
      if (!SPARE_PATTERN.test(name)) continue;
      this.#nextNumber = Math.max(this.#nextNumber, Number(name.split('-')[1]) + 1);
      const file = await this.#store.open(name, 'write');
      const fits = (await file.size()) === this.#fileBytes;
      await file.close();
      const list = name.startsWith('reserve') ? this.#reserve : this.#spares;
      const wanted = list === this.#reserve ? this.#reserveMax : this.#sparesMax;
      if (fits && list.length < wanted) list.push(name);
      else await this.#store.remove(name);
    }
  }

  /** Brings the reserve up to its size where the disk has room. */
  async fillReserve(): Promise<void> {
    while (this.#reserve.length < this.#reserveMax) {
      const name = `reserve-${this.#nextNumber++}`;
      try {
        const spare = this.#spares.pop();
        if (spare !== undefined) {
          await this.#store.rename(spare, name);
        } else {
          const file = await this.#store.create(name, this.#fileBytes);
          await file.close();
        }
        this.#reserve.push(name);
      } catch (error) {
        if (errnoOf(error) === 'ENOSPC' || errnoOf(error) === 'EDQUOT') return;
        throw error;
      }
    }
  }

  /** An open, allocated file of `sizeBytes` named `name`: a spare, a new one, or one of the reserve where the disk is full. */
  async take(name: string, sizeBytes: number, claim: ReserveClaim): Promise<StoreFile> {
    const spare = sizeBytes <= this.#fileBytes ? this.#spares.pop() : undefined;
    if (spare !== undefined) return this.#open(spare, name);
    try {
      return await this.#store.create(name, sizeBytes);
    } catch (error) {
      const full = errnoOf(error) === 'ENOSPC' || errnoOf(error) === 'EDQUOT';
      const allowed = full && sizeBytes <= this.#fileBytes && this.#allows(claim);
      const reserved = allowed ? await this.takeReserve(name) : undefined;
      if (reserved === undefined) throw error;
      return reserved;
    }
  }

  #allows(claim: ReserveClaim): boolean {
    if (claim === 'none') return false;
    return claim === 'all' || this.#reserve.length >= Math.min(2, this.#reserveMax);
  }

  /** One file of the reserve, renamed to `name`; undefined where none is left. */
  async takeReserve(name: string): Promise<StoreFile | undefined> {
    const reserved = this.#reserve.pop();
    return reserved === undefined ? undefined : this.#open(reserved, name);
  }

  async #open(from: string, name: string): Promise<StoreFile> {
    await this.#store.rename(from, name);
    const file = await this.#store.open(name, 'write');
    // A sparse spare (copied without its holes, say) must not turn into ENOSPC later.
    await addon.fileAllocate(file.fd, this.#fileBytes);
    return file;
  }

  /** Takes in the file of a dead segment, or removes it. `recyclable` is false for plaintext and for odd sizes. */
  async put(name: string, recyclable: boolean): Promise<void> {
    const list = this.#reserve.length < this.#reserveMax ? this.#reserve : this.#spares;
    const wanted = list === this.#reserve || list.length < this.#sparesMax;
    if (!recyclable || !wanted) return this.#store.remove(name);
    const kind = list === this.#reserve ? 'reserve' : 'spare';
    const as = `${kind}-${this.#nextNumber++}`;
    await this.#store.rename(name, as);
    list.push(as);
  }
}
