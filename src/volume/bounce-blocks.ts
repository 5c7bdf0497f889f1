import { BLOCK_BYTES } from '../base/limits.js';
import type { MaybePromise } from '../base/maybe-promise.js';
import { addon } from '../native/addon.js';
import { Arena } from '../native/arena.js';

const KEPT_MAX = 16;

/** Single blocks of plaintext for requests that cover a block in part. Wiped when they are given back. */
export class BounceBlocks {
  readonly #idle: Arena[] = [];

  take(): Arena {
    return this.#idle.pop() ?? new Arena(BLOCK_BYTES);
  }

  give(block: Arena): void {
    if (this.#idle.length >= KEPT_MAX) {
      block.free();
      return;
    }
    addon.wipe(block.bytes);
    this.#idle.push(block);
  }

  /** Gives the block back when `use` is over. */
  during(block: Arena, use: () => MaybePromise<void>): MaybePromise<void> {
    let later = false;
    try {
      const done = use();
      if (!(done instanceof Promise)) return;
      later = true;
      return done.finally(() => this.give(block));
    } finally {
      if (!later) this.give(block);
    }
  }

  free(): void {
    for (const block of this.#idle.splice(0)) block.free();
  }
}
