/**
 * A kill, then a power loss after recovery: what recovery showed to anybody must be on the disk before it is shown, though
 * the process that wrote it never flushed it.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { FsStore } from '../../src/store/fs-store.js';
import { PowerLossStore } from '../support/power-loss-store.js';
import { BLOCK, patternBlock, seededRandom, VolumeHarness } from '../support/volume-harness.js';

/** They fit in the first segment. */
const BLOCKS = 40;
const ROUNDS = Number(process.env.SEALBD_CRASH_ROUNDS ?? 20);
const SEED = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);
/** Longer than the engine keeps an acknowledged write in memory alone. */
const WRITTEN_OUT_MS = 60;

async function round(seed: number): Promise<void> {
  const random = seededRandom(seed);
  let store: PowerLossStore | undefined;
  const harness = await VolumeHarness.create({
    sizeBytes: BLOCKS * BLOCK,
    store: async (path) => {
      const inner = await FsStore.open(path, { create: true });
      if (path !== harnessPath(store, path)) return inner;
      store ??= new PowerLossStore(inner);
      return store;
    },
  });
  const image = await mkdtemp(join(tmpdir(), 'sealbd-loss-'));
  const killed = harness.volume;
  try {
    if (store === undefined) throw new Error('the store was not made');
    const blocks = 1 + Math.floor(random() * BLOCKS);
    for (let lba = 0; lba < blocks; lba++) await harness.write(lba * BLOCK, patternBlock(lba, seed));
    await untilQuiet(store);
    // The volume from before is left as a kill leaves it: the kernel has everything, the disk has nothing of it.
    await harness.open(false);
    for (let lba = 0; lba < blocks; lba++) {
      expect(await harness.read(lba * BLOCK, BLOCK)).toEqual(patternBlock(lba, seed));
    }
    await store.lose(image, random);
    await harness.stop();
    await harness.open(false, image);
    for (let lba = 0; lba < blocks; lba++) {
      const block = await harness.read(lba * BLOCK, BLOCK);
      expect(Buffer.compare(block, patternBlock(lba, seed)), `block ${lba} was read before`).toBe(0);
    }
    // The way that short requests take, without another thread, was taken.
    expect(harness.cipher.stats().inlineJobs).toBeGreaterThan(0);
  } finally {
    await harness.destroy();
    // It gives back its memory; the files that it wants to tidy up have long been another's.
    await killed.stop(10_000).catch(() => undefined);
    await rm(image, { recursive: true, force: true });
  }
}

/** Until the volume has made its open segment and the next one, and written out what it holds. */
async function untilQuiet(store: PowerLossStore): Promise<void> {
  const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, WRITTEN_OUT_MS));
  while ((await store.list()).filter((name) => /^seg-[0-9a-f]+$/.test(name)).length < 2) await pause();
  await pause();
}

/** The first store made is of the volume under test; the image that a loss leaves is opened as it is. */
function harnessPath(store: PowerLossStore | undefined, path: string): string {
  return store?.path ?? path;
}

it(`what recovery shows is durable, over ${ROUNDS} kills and losses, seed ${SEED}`, {
  timeout: 300_000,
}, async () => {
  for (let i = 0; i < ROUNDS; i++) {
    try {
      await round(SEED + i);
    } catch (error) {
      throw new Error(`round ${i}, SEALBD_SEED=${SEED}`, { cause: error });
    }
  }
});
