import { vi } from 'vitest';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { addon, type SegmentKeyHandle } from '../../src/native/addon.js';

/**
 * Notes every (key, position) that this process seals, on this thread or by the pool: the first argument of every
 * encryption of user data. The key is named by its context, so a key derived twice is the same key.
 */
export class SealRecorder {
  readonly #contexts = new Map<SegmentKeyHandle, string>();
  readonly #sealed = new Set<string>();
  readonly repeats: string[] = [];
  inline = 0;
  pooled = 0;

  /** Until vi.restoreAllMocks(). All DEKs of the test are one and the same. */
  install(): this {
    const derive = addon.segmentKeyDerive.bind(addon);
    const seal = addon.sealRun.bind(addon);
    const run = CipherPool.prototype.run;
    vi.spyOn(addon, 'segmentKeyDerive').mockImplementation((key, suite, context) => {
      const handle = derive(key, suite, context);
      this.#contexts.set(handle, Buffer.from(context).toString('hex'));
      return handle;
    });
    vi.spyOn(addon, 'sealRun').mockImplementation((...args) => {
      this.#note(args[0], args[4], args[3]);
      this.inline++;
      return seal(...args);
    });
    const note = (key: SegmentKeyHandle, position: number, blocks: number): void => {
      this.#note(key, position, blocks);
      this.pooled++;
    };
    vi.spyOn(CipherPool.prototype, 'run').mockImplementation(function (this: CipherPool, job) {
      if (job.op === 'seal') note(job.key, job.position, job.blocks);
      return run.call(this, job);
    });
    return this;
  }

  get positions(): number {
    return this.#sealed.size;
  }

  #note(key: SegmentKeyHandle, position: number, blocks: number): void {
    const context = this.#contexts.get(key);
    if (context === undefined) throw new Error('a key that was never derived');
    for (let i = position; i < position + blocks; i++) {
      const pair = `${context} ${i}`;
      if (this.#sealed.has(pair)) this.repeats.push(pair);
      this.#sealed.add(pair);
    }
  }
}
