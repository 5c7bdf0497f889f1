import { SYNCS_AT_ONCE_MAX } from '../base/limits.js';
import type { StoreFile } from '../store/store.js';

/** Syncs files that are complete, and closes them, beside whatever else is done; a few at a time. */
export class SyncQueue {
  readonly #running = new Set<Promise<void>>();
  #failure: unknown;

  /** Takes over the file. Resolves when there is room for it; rejects where an earlier one failed. */
  async add(file: StoreFile): Promise<void> {
    while (this.#running.size >= SYNCS_AT_ONCE_MAX) await Promise.race(this.#running);
    const work = this.#finish(file).catch((error: unknown) => {
      this.#failure ??= error;
    });
    this.#running.add(work);
    void work.then(() => this.#running.delete(work));
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #finish(file: StoreFile): Promise<void> {
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }

  /** Resolves when every file is durable; rejects, after all have ended, where one failed. */
  async end(): Promise<void> {
    await Promise.all(this.#running);
    if (this.#failure !== undefined) throw this.#failure;
  }
}
