import { expect, it, onTestFinished } from 'vitest';
import { addon } from '../../src/native/addon.js';
import { BLOCK, patternBlock, VolumeHarness } from '../support/volume-harness.js';

const SEGMENTS = 24;
const SEGMENT_SLOTS = 64;

it('a rewriting makes no checkpoint for segments whose blocks were overwritten before their turn came', async () => {
  const key = addon.keyGenerate();
  onTestFinished(() => addon.keyRelease(key));
  const harness = await VolumeHarness.create({
    tuning: { segmentSlots: SEGMENT_SLOTS, checkpointSlots: 1 << 20 },
  });
  onTestFinished(() => harness.destroy());
  const write = async (version: number): Promise<void> => {
    for (let lba = 0; lba < SEGMENTS * SEGMENT_SLOTS; lba++)
      await harness.write(lba * BLOCK, patternBlock(lba, version));
  };
  const { volume } = harness;
  await write(1);
  await volume.switchKey(2, key, harness.suite);
  await write(2);
  const before = volume.stats().checkpoints;
  await volume.rewrite({ signal: new AbortController().signal, onProgress: () => undefined });
  expect(volume.stats().checkpoints - before).toBeLessThan(SEGMENTS / 4);
  expect(volume.deksInUse()).toEqual(new Set([2]));
  expect(Buffer.compare(await harness.read(0, BLOCK), patternBlock(0, 2))).toBe(0);
});
