/**
 * Overwrites files that hold plaintext of a volume that is to have none, and releases them. One after the other and beside
 * everything else, since a file takes a tenth of a second; a stop cuts it short, and opening the volume goes on with it.
 */
import { type Clock, sleep } from '../base/clock.js';
import { errnoOf, messageOf } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { Store } from '../store/store.js';
import { overwrite } from './file-reserve.js';

const RETRY_MS = 1000;

export interface EraserOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Logger;
  /** Removes a file that is blank now, or uses it again. */
  release(name: string): Promise<void>;
}

export class Eraser {
  readonly #store: Store;
  readonly #release: (name: string) => Promise<void>;
  readonly #clock: Clock;
  readonly #log: Logger;
  /** Names still to be erased, the one at work included. */
  readonly #names = new Set<string>();
  #working: Promise<void> | undefined;
  #stopped = false;
  /** Why a file could not be erased at the last attempt. */
  #failure: string | undefined;

  constructor({ store, clock, log, release }: EraserOptions) {
    this.#store = store;
    this.#release = release;
    this.#clock = clock;
    this.#log = log;
  }

  get pending(): number {
    return this.#names.size;
  }

  /** Why nothing gets on, if that is so. */
  get failure(): string | undefined {
    return this.#failure;
  }

  add(name: string): void {
    this.#names.add(name);
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
    });
  }

  async #work(): Promise<void> {
    while (this.#names.size > 0 && !this.#stopped) {
      let failure: string | undefined;
      for (const name of [...this.#names]) {
        if (this.#stopped) return;
        try {
          if (await this.#erase(name)) this.#names.delete(name);
        } catch (error) {
          failure = `${name}: ${messageOf(error)}`;
          this.#log.error({ file: name, reason: messageOf(error) }, 'plaintext could not be overwritten');
        }
      }
      this.#failure = failure;
      if (failure !== undefined) await sleep(this.#clock, RETRY_MS);
    }
  }

  /** False where a stop cut it short. */
  async #erase(name: string): Promise<boolean> {
    try {
      const outcome = await overwrite(this.#store, name, () => this.#stopped);
      if (outcome === 'ended') return false;
      // The plaintext of a clone, which is a volume of its own, is not this one's to erase.
      if (outcome === 'shared') await this.#store.remove(name);
      else await this.#release(name);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error; // A lost segment has no file.
    }
    return true;
  }

  /** Ends at the next piece of a file. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#working;
  }
}
