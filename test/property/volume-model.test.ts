import { afterEach, describe, expect, it } from 'vitest';
import { BLOCK, patternBlock, seededRandom, VolumeHarness } from '../support/volume-harness.js';

/** Bytes of the whole device, as a plain buffer: the oracle. */
class Model {
  readonly bytes: Uint8Array;
  constructor(sizeBytes: number) {
    this.bytes = new Uint8Array(sizeBytes);
  }
}

const SIZE = 8 * 1024 * 1024;
const seed = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);

describe.each([
  { suite: 2 as const, name: 'aes-256-gcm' },
  { suite: 1 as const, name: 'aes-256-ctr' },
  { suite: 0 as const, name: 'none' },
])(`a volume under random requests, $name, seed ${seed}`, ({ suite }) => {
  let harness: VolumeHarness;
  afterEach(() => harness.destroy());

  it('reads back what was written, trimmed and zeroed, over reopening, compaction and checkpoints', async () => {
    harness = await VolumeHarness.create({ suite, sizeBytes: SIZE });
    const model = new Model(SIZE);
    const random = seededRandom(seed + suite);
    const int = (max: number): number => Math.floor(random() * max);
    for (let step = 0; step < 1500; step++) {
      const aligned = random() < 0.6;
      const length = aligned ? (1 + int(40)) * BLOCK : 1 + int(30_000);
      const offset = aligned ? int((SIZE - length) / BLOCK) * BLOCK : int(SIZE - length);
      const what = random();
      if (what < 0.6) {
        const data = new Uint8Array(length);
        for (let at = 0; at < length; at += BLOCK)
          data.set(patternBlock(at, step).subarray(0, length - at), at);
        await harness.write(offset, data);
        model.bytes.set(data, offset);
      } else if (what < 0.7) {
        await harness.volume.trim(offset, length);
        const from = Math.ceil(offset / BLOCK) * BLOCK;
        const to = Math.floor((offset + length) / BLOCK) * BLOCK;
        if (to > from) model.bytes.fill(0, from, to);
      } else if (what < 0.78) {
        await harness.volume.zero(offset, length);
        model.bytes.fill(0, offset, offset + length);
      } else if (what < 0.95) {
        const got = await harness.read(offset, length);
        expect(Buffer.compare(got, model.bytes.subarray(offset, offset + length))).toBe(0);
      } else if (what < 0.97) await harness.volume.flush();
      else if (what < 0.98) await harness.volume.checkpoint();
      else if (what < 0.985) await harness.volume.compact();
      else if (what < 0.99) await harness.reopen();
    }
    await harness.reopen();
    for (let at = 0; at < SIZE; at += 1 << 20) {
      const got = await harness.read(at, 1 << 20);
      expect(Buffer.compare(got, model.bytes.subarray(at, at + (1 << 20)))).toBe(0);
    }
    const controller = new AbortController();
    const verified = await harness.volume.verify({ signal: controller.signal, onProgress: () => undefined });
    expect(verified.lost).toEqual([]);
    expect(verified.problems).toEqual([]);
  });
});
