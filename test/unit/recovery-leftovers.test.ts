/** What a crash left in the directory is gone before anything new is written there. */
import { cpSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { type Logger, nullLogger } from '../../src/base/log.js';
import type { VolumeTuning } from '../../src/volume/tuning.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { BLOCK, patternBlock, VolumeHarness } from '../support/volume-harness.js';

/** Apart from each other: every one is a change of its own. */
const BLOCKS = 300;
const mapFile = (id: number): string => `map-${id.toString(16).padStart(16, '0')}`;

it('a recovery with more changes than start a checkpoint meets no map file that a checkpoint left behind', async () => {
  const tuning: { -readonly [K in keyof VolumeTuning]?: VolumeTuning[K] } = { checkpointSlots: 1 << 20 };
  const errors: unknown[] = [];
  const log: Logger = { ...nullLogger, error: (...what: unknown[]) => void errors.push(what) };
  const harness = await VolumeHarness.create({ tuning, log });
  onTestFinished(() => harness.destroy());
  for (let lba = 0; lba < BLOCKS; lba++) await harness.write(2 * lba * BLOCK, patternBlock(lba, 1));
  await harness.volume.flush();
  const copy = temporaryDirectory();
  cpSync(harness.path, copy, { recursive: true });
  await harness.stop();
  for (let id = 1; id <= 4; id++) {
    const path = join(copy, mapFile(id));
    if (!existsSync(path)) writeFileSync(path, 'half a map file');
  }
  tuning.checkpointSlots = 64;
  await harness.open(false, copy);
  for (let lba = 0; lba < BLOCKS; lba++)
    expect(Buffer.compare(await harness.read(2 * lba * BLOCK, BLOCK), patternBlock(lba, 1))).toBe(0);
  await harness.stop();
  expect(errors).toEqual([]);
});
