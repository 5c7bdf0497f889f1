import { readdirSync } from 'node:fs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { addon } from '../../src/native/addon.js';
import { BLOCK, patternBlock, VolumeHarness } from '../support/volume-harness.js';

/** More than the segment that is open and the one that is prepared hold. */
const BLOCKS = 200;

afterEach(() => vi.restoreAllMocks());

/** From now on there is no memory for another key, as where the kernel locks no more of it. */
function exhaust(): void {
  vi.spyOn(addon, 'segmentKeyDerive').mockImplementation(() => {
    throw Object.assign(new Error('no secure memory for another key'), { code: 'KEY_MEMORY' });
  });
}

describe('a volume without memory for the key of another segment', () => {
  it('answers ENOMEM, serves on, and takes writes again once there is some', async () => {
    const harness = await VolumeHarness.create({ tuning: { garbageRatio: 1 } });
    try {
      await harness.write(0, patternBlock(0, 1));
      exhaust();
      let written = 0;
      const filling = (async () => {
        for (let lba = 1; lba < BLOCKS; lba++) {
          await harness.write(lba * BLOCK, patternBlock(lba, 1));
          written = lba;
        }
      })();
      await expect(filling).rejects.toMatchObject({ code: 'ENOMEM' });
      expect(harness.volume.state).toBe('serving');
      expect(await harness.read(0, BLOCK)).toEqual(patternBlock(0, 1));
      const segments = (): string[] => readdirSync(harness.path).filter((name) => name.startsWith('seg-'));
      const before = segments();
      const again = harness.write((written + 1) * BLOCK, patternBlock(9, 9));
      await expect(again).rejects.toMatchObject({ code: 'ENOMEM' });
      expect(segments()).toEqual(before);

      vi.restoreAllMocks();
      for (let lba = written + 1; lba < BLOCKS; lba++) await harness.write(lba * BLOCK, patternBlock(lba, 2));
      await harness.reopen();
      for (let lba = 0; lba < BLOCKS; lba++) {
        const version = lba <= written ? 1 : 2;
        expect(await harness.read(lba * BLOCK, BLOCK), `block ${lba}`).toEqual(patternBlock(lba, version));
      }
      const { problems, lost } = await harness.volume.verify({
        signal: AbortSignal.timeout(30_000),
        onProgress: () => undefined,
      });
      expect([...problems, ...lost]).toEqual([]);
    } finally {
      await harness.destroy();
    }
    expect(addon.secureMemory().segmentKeysUsed).toBe(0);
  });
});
