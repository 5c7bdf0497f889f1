import type { Logger } from '../base/log.js';
import type { Segment } from '../segment/segment.js';

const LOGGED_MAX = 1000;

/** Blocks that could not be read back: counted, and logged without flooding. */
export class DamageLog {
  readonly #log: Logger;
  readonly #loggedFor = new Set<number>();
  reads = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  note(segment: Segment, position: number, lba: number, reason: string): void {
    this.reads++;
    if (this.#loggedFor.has(lba) || this.#loggedFor.size >= LOGGED_MAX) return;
    this.#loggedFor.add(lba);
    this.#log.error({ segment: segment.id, position, lba, reason }, 'a stored block can not be read');
  }
}
