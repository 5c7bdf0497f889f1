/** What a generator of random input throws. */
import { REQUEST_BYTES_MAX } from '../../src/base/limits.js';
import { SeededRandom } from './seeded-random.js';

/** Cheap and repeatable: one number of the keystream at a time would be too slow for a generator. */
export class Dice {
  readonly #random: SeededRandom;
  #pool: Buffer = Buffer.alloc(0);
  #at = 0;

  constructor(of: number) {
    this.#random = new SeededRandom(of);
  }

  below(limit: number): number {
    if (this.#at + 4 > this.#pool.length) {
      this.#pool = this.#random.bytes(65_536);
      this.#at = 0;
    }
    const value = this.#pool.readUInt32LE(this.#at);
    this.#at += 4;
    return value % limit;
  }

  one<T>(...choices: readonly T[]): T {
    return choices[this.below(choices.length)];
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  /** Fewer than `limit`. */
  bytes(limit: number): Buffer {
    return this.#random.bytes(this.below(limit));
  }

  exactly(count: number): Buffer {
    return this.#random.bytes(count);
  }

  /** A number of 64 bits. */
  word64(): bigint {
    return this.#random.bytes(8).readBigUInt64LE();
  }

  /** A number of 32 bits that is likely to matter. */
  word(): number {
    const interesting = this.one(
      0,
      1,
      4,
      511,
      4096,
      65_536,
      REQUEST_BYTES_MAX,
      0x7fff_ffff,
      0xffff_fff0,
      0xffff_ffff,
    );
    return this.chance(50) ? interesting : this.below(2 ** 32);
  }
}
