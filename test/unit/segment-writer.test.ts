import { afterEach, describe, expect, it } from 'vitest';
import { BLOCK, patternBlock, VolumeHarness } from '../support/volume-harness.js';

describe('a segment writer', () => {
  let harness: VolumeHarness;
  afterEach(() => harness.destroy());

  it('never writes a buffer that was given back, when age and fullness both sent it out', async () => {
    harness = await VolumeHarness.create({
      sizeBytes: 256 << 20,
      tuning: { segmentSlots: 4096, checkpointSlots: 65_536, bufferAgeMs: 0, appendBuffers: 2 },
    });
    const blocks = 96;
    const data = new Uint8Array(blocks * BLOCK);
    for (let at = 0; at < 20_000; at += blocks) {
      for (let i = 0; i < blocks; i++) data.set(patternBlock(at + i, 1), i * BLOCK);
      await harness.write(at * BLOCK, data);
      if (at % (blocks * 4) === 0) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    await harness.volume.flush();
    const { signal } = new AbortController();
    const { lost } = await harness.volume.verify({ signal, onProgress: () => undefined });
    expect(lost).toEqual([]);
  });
});
