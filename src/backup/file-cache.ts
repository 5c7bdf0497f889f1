import type { StoreFile } from '../store/store.js';

/** Open files by name, a bounded number; the one that was asked for longest ago is closed first. */
export class FileCache {
  readonly #open: (name: string) => Promise<StoreFile>;
  readonly #max: number;
  readonly #files = new Map<string, StoreFile>();

  constructor(open: (name: string) => Promise<StoreFile>, max: number) {
    this.#open = open;
    this.#max = max;
  }

  /** One caller at a time: the file may be closed by the next call. */
  async get(name: string): Promise<StoreFile> {
    const file = this.#files.get(name) ?? (await this.#open(name));
    // A Map iterates in order of insertion.
    this.#files.delete(name);
    this.#files.set(name, file);
    for (const [oldest, stale] of this.#files) {
      if (this.#files.size <= this.#max) break;
      this.#files.delete(oldest);
      await stale.close();
    }
    return file;
  }

  async close(): Promise<void> {
    const files = [...this.#files.values()];
    this.#files.clear();
    for (const file of files) await file.close();
  }
}
