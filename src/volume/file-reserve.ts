import { addon } from '../native/addon.js';
import { isDiskFull } from '../store/disk-full.js';
import type { Store, StoreFile } from '../store/store.js';

/** Segments and map files name their DEK at the same place; so does what is left of them in a spare file. */
const DEK_ID_AT = 12;
const DEK_ID_BYTES = 4;
const ZEROS_BYTES = 1 << 20;

interface ReserveFile {
  readonly name: string;
  /** What it still holds something under; 0: nothing that needs a key. */
  readonly dekId: number;
}

export interface FileReserveOptions {
  readonly store: Store;
  readonly prefix: string;
  readonly fileBytes: number;
  readonly max: number;
  /** The DEK that seals what is new. */
  sealing(): number;
}

/**
 * Up to `max` files of `fileBytes`, each with its space allocated, named `PREFIX-NUMBER`. A file that is taken keeps its
 * space; one that comes back is made whole again, or refused. One with another name is another volume's too, and is refused. No file is handed out, or taken in, that holds something
 * under another DEK than the sealing one: so no file is ever under two.
 */
export class FileReserve {
  readonly #store: Store;
  readonly #prefix: string;
  readonly #fileBytes: number;
  readonly #max: number;
  readonly #sealing: () => number;
  readonly #files: ReserveFile[] = [];
  #nextNumber = 0;

  constructor({ store, prefix, fileBytes, max, sealing }: FileReserveOptions) {
    this.#store = store;
    this.#prefix = prefix;
    this.#fileBytes = fileBytes;
    this.#max = max;
    this.#sealing = sealing;
  }

  get fileBytes(): number {
    return this.#fileBytes;
  }

  get count(): number {
    return this.#files.length;
  }

  get complete(): boolean {
    return this.#files.length >= this.#max;
  }

  /** Takes over the files that an earlier run left; those that don't fit go. */
  async adopt(names: readonly string[]): Promise<void> {
    for (const name of names) {
      const number = this.#numberOf(name);
      if (number === undefined) continue;
      this.#nextNumber = Math.max(this.#nextNumber, number + 1);
      const dekId = this.complete ? undefined : await this.#wholeUnder(name);
      if (dekId === undefined) await this.#store.remove(name);
      else this.#files.push({ name, dekId });
    }
  }

  #isForeign({ dekId }: ReserveFile): boolean {
    return dekId !== 0 && dekId !== this.#sealing();
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
      this.#files.push({ name, dekId: 0 });
    }
    return true;
  }

  /** Removes the files that hold something under another DEK, or overwrites them, so that their space stays. */
  async purge(how: 'remove' | 'overwrite'): Promise<void> {
    for (;;) {
      const at = this.#files.findIndex((file) => this.#isForeign(file));
      if (at < 0) return;
      // Out of everybody's reach first: whoever takes a file writes into it at once.
      const [{ name }] = this.#files.splice(at, 1);
      const blank = how === 'overwrite' && (await this.#overwritten(name));
      if (blank && !this.complete) this.#files.push({ name, dekId: 0 });
      else await this.#store.remove(name);
    }
  }

  /** What can't be overwritten is let go of: it is ciphertext. */
  async #overwritten(name: string): Promise<boolean> {
    try {
      return (await overwrite(this.#store, name)) === 'blank';
    } catch {
      return false;
    }
  }

  /** One of the files, open and renamed to `as`, for something under DEK `dekId`; undefined where none is left for it. */
  async take(as: string, dekId: number): Promise<StoreFile | undefined> {
    for (;;) {
      const at = this.#files.findLastIndex((file) => file.dekId === 0 || file.dekId === dekId);
      if (at < 0) return undefined;
      const [{ name }] = this.#files.splice(at, 1);
      await this.#store.rename(name, as);
      const file = await this.#store.open(as, 'write');
      // A clone may have linked it after it was looked at, and before it had a name of the reserve.
      if ((await file.links()) === 1) return file;
      await file.close();
      await this.#store.remove(as);
    }
  }

  /** Takes in another file, renamed; false where it is not wanted, or can't have its whole space. */
  async put(name: string): Promise<boolean> {
    if (this.complete) return false;
    const dekId = await this.#wholeUnder(name);
    if (dekId === undefined || this.#isForeign({ name, dekId })) return false;
    const as = this.#newName();
    await this.#store.rename(name, as);
    // The DEK may have changed meanwhile: a purge that did not see this file yet is not to have missed it.
    if (this.#isForeign({ name: as, dekId })) await this.#store.remove(as);
    else this.#files.push({ name: as, dekId });
    return true;
  }

  /** Takes in a file whatever it holds, overwritten, so that its space goes to nobody else; false where that fails. */
  async putOverwritten(name: string): Promise<boolean> {
    if (this.complete) return false;
    // Under its own name until it is blank: a crash must leave nothing in the reserve that looks blank and is not.
    return (await this.#overwritten(name)) && this.put(name);
  }

  /** Hands one file over to another reserve of files of the same size. */
  async giveTo(other: FileReserve): Promise<boolean> {
    const file = this.#files.pop();
    if (file === undefined) return false;
    if (await other.put(file.name)) return true;
    await this.#store.remove(file.name);
    return false;
  }

  /**
   * Gives the file all of its space, since it may have been cut, or copied without its holes; tells which DEK it names.
   * Undefined where the disk has no room, or the file is shared.
   */
  async #wholeUnder(name: string): Promise<number | undefined> {
    const file = await this.#store.open(name, 'write');
    try {
      if ((await file.links()) > 1) return undefined;
      if ((await file.size()) > this.#fileBytes) await file.truncate(this.#fileBytes);
      await addon.fileAllocate(file.fd, this.#fileBytes);
      const bytes = Buffer.alloc(DEK_ID_BYTES);
      await file.read(bytes, DEK_ID_AT);
      return bytes.readUInt32LE(0);
    } catch (error) {
      if (isDiskFull(error)) return undefined;
      throw error;
    } finally {
      await file.close();
    }
  }

  #newName(): string {
    return `${this.#prefix}-${this.#nextNumber++}`;
  }
}

/**
 * Fills a file with zeros. Its head, which says what it holds, goes last: a crash on the way does not hide the rest.
 * `ended` is asked between pieces; where it says so the file is left as it is, and the result is `ended`. One with another name is
 * another volume's too, and is left as it is: `shared`.
 */
export async function overwrite(
  store: Store,
  name: string,
  ended = () => false,
): Promise<'blank' | 'ended' | 'shared'> {
  const file = await store.open(name, 'write');
  try {
    if ((await file.links()) > 1) return 'shared';
    const sizeBytes = await file.size();
    const zeros = new Uint8Array(Math.min(ZEROS_BYTES, sizeBytes));
    for (let at = zeros.length; at < sizeBytes; at += zeros.length) {
      if (ended()) return 'ended';
      await file.write(zeros.subarray(0, Math.min(zeros.length, sizeBytes - at)), at);
    }
    await file.sync();
    await file.write(zeros, 0);
    await file.sync();
    return 'blank';
  } finally {
    await file.close();
  }
}
