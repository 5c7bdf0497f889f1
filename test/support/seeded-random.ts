import { createCipheriv } from 'node:crypto';

/** The seed of a random test: `SEALBD_TEST_SEED`, or a new one. It is printed, so that a failure can be replayed. */
export function testSeed(name: string): number {
  const seed = Number(process.env.SEALBD_TEST_SEED ?? Date.now() % 2 ** 31);
  console.log(`${name}: SEALBD_TEST_SEED=${seed}`);
  return seed;
}

/** Repeatable random bytes: an AES-256-CTR keystream under a key made of the seed. */
export class SeededRandom {
  readonly #stream;

  constructor(seed: number) {
    const key = Buffer.alloc(32);
    key.writeDoubleLE(seed);
    this.#stream = createCipheriv('aes-256-ctr', key, Buffer.alloc(16));
  }

  bytes(size: number): Buffer {
    return Buffer.from(this.#stream.update(Buffer.alloc(size)));
  }

  /** An integer in [0, below). */
  below(below: number): number {
    return this.bytes(4).readUInt32LE() % below;
  }
}
