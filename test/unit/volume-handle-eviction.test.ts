import { expect, it } from 'vitest';
import { BLOCK, patternBlock, VolumeHarness } from '../support/volume-harness.js';

it('eviction leaves alone what a writer has still to sync', async () => {
  const harness = await VolumeHarness.create({
    tuning: { handlesMax: 4, checkpointSlots: 100000, garbageRatio: 1 },
  });
  try {
    const v = harness.volume;
    for (let i = 0; i < 640; i++) await harness.write(i * BLOCK, patternBlock(i, 1));
    await v.flush();
    for (let i = 640; i < 720; i++) await harness.write(i * BLOCK, patternBlock(i, 1)); // a sealed segment, unsynced
    await new Promise((r) => setTimeout(r, 50));
    for (let r = 0; r < 3; r++) for (let i = 0; i < 640; i += 64) await harness.read(i * BLOCK, BLOCK);
    await v.flush();
    expect(v.state).toBe('serving');
  } finally {
    await harness.destroy().catch(() => undefined);
  }
});
