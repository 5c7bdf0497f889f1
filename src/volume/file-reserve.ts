import { addon } from '../native/addon.js';
import { isDiskFull } from '../store/disk-full.js';
import type { Store, StoreFile } from '../store/store.js';

/** Segments and map files name their DEK at the same place; so does what is left of them in a spare file. */
const DEK_ID_AT = 12;
const DEK_ID_BYTES = 4;
const ZEROS_BYTES = 1 << 20;

/**
 * Up to `max` files of `fileBytes`, each with its space allocated, named `PREFIX-NUMBER`. A file that is taken keeps its
 * space; one that comes back is made whole again, or refused.
 */
export class FileReserve {
  readonly #store: Store;
  readonly #prefix: string;
  readonly #fileBytes: number;
  readonly #max: number;
  readonly #names: string[] = [];
  #nextNumber = 0;

  constructor(store: Store, prefix: string, fileBytes: number, max: number) {
    this.#store = store;
    this.#prefix = prefix;
    this.#fileBytes = fileBytes;
    this.#max = max;
  }

  get fileBytes(): number {
    return this.#fileBytes;
  }

  get count(): number {
    return this.#names.length;
  }

  get complete(): boolean {
    return this.#names.length >= this.#max;
  }

  /** Takes over the files that an earlier run left; those that don't fit go. */
  async adopt(names: readonly string[]): Promise<void> {
    for (const name of names) {
      const number = this.#numberOf(name);
      if (number === undefined) continue;
      this.#nextNumber = Math.max(this.#nextNumber, number + 1);
      if (this.complete || !(await this.#isWhole(name))) await this.#store.remove(name);
      else this.#names.push(name);
    }
  }

  #numberOf(name: string): number | undefined {
    const rest = name.startsWith(`${this.#prefix}-`) ? name.slice(this.#prefix.length + 1) : '';
    return /^[0-9]{1,9}$/.test(rest) ? Number(rest) : undefined;
  }

  /** Makes new files where the disk has room; false where it has none. */
  async fill(): Promise<boolean> {
    while (!this.complete) {
      const name = this.#newName();
      try {
        const file = await this.#store.create(name, this.#fileBytes);
        await file.close();
      } catch (error) {
        if (isDiskFull(error)) return false;
        throw error;
      }
      this.#names.push(name);
    }
    return true;
  }

  /** Removes the files that hold something under another DEK than `dekId`. */
  async removeForeign(dekId: number): Promise<void> {
    for (const name of [...this.#names]) {
      if (!(await this.#isForeign(name, dekId))) continue;
      this.#names.splice(this.#names.indexOf(name), 1);
      await this.#store.remove(name);
    }
  }

  /** Overwrites what is under another DEK with zeros, durably; the files keep their space. */
  async zeroForeign(dekId: number): Promise<void> {
    for (const name of [...this.#names])
      if (await this.#isForeign(name, dekId)) await overwrite(this.#store, name);
  }

  async #isForeign(name: string, dekId: number): Promise<boolean> {
    const file = await this.#store.open(name, 'read');
    try {
      const bytes = Buffer.alloc(DEK_ID_BYTES);
      await file.read(bytes, DEK_ID_AT);
      const found = bytes.readUInt32LE(0);
      return found !== 0 && found !== dekId;
    } finally {
      await file.close();
    }
  }

  /** One of the files, open and renamed to `as`; undefined where none is left. */
  async take(as: string): Promise<StoreFile | undefined> {
    const name = this.#names.pop();
    if (name === undefined) return undefined;
    await this.#store.rename(name, as);
    return this.#store.open(as, 'write');
  }

  /** Takes in another file, renamed; false where it is not wanted, or can't have its whole space. */
  async put(name: string): Promise<boolean> {
    if (this.complete || !(await this.#isWhole(name))) return false;
    const as = this.#newName();
    await this.#store.rename(name, as);
    this.#names.push(as);
    return true;
  }

  /** Hands one file over to another reserve of files of the same size. */
  async giveTo(other: FileReserve): Promise<boolean> {
    const name = this.#names.pop();
    if (name === undefined) return false;
    if (await other.put(name)) return true;
    await this.#store.remove(name);
    return false;
  }

  /** Gives the file all of its space: it may have been cut, or copied without its holes. */
  async #isWhole(name: string): Promise<boolean> {
    const file = await this.#store.open(name, 'write');
    try {
      if ((await file.size()) > this.#fileBytes) await file.truncate(this.#fileBytes);
      await addon.fileAllocate(file.fd, this.#fileBytes);
      return true;
    } catch (error) {
      if (isDiskFull(error)) return false;
      throw error;
    } finally {
      await file.close();
    }
  }

  #newName(): string {
    return `${this.#prefix}-${this.#nextNumber++}`;
  }
}

/** Fills a file with zeros. Its head, which says what it holds, goes last: a crash on the way does not hide the rest. */
export async function overwrite(store: Store, name: string): Promise<void> {
  const file = await store.open(name, 'write');
  try {
    const sizeBytes = await file.size();
    const zeros = new Uint8Array(Math.min(ZEROS_BYTES, sizeBytes));
    for (let at = zeros.length; at < sizeBytes; at += zeros.length)
      await file.write(zeros.subarray(0, Math.min(zeros.length, sizeBytes - at)), at);
    await file.sync();
    await file.write(zeros, 0);
    await file.sync();
  } finally {
    await file.close();
  }
}
