import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { FsStore } from '../../src/store/fs-store.js';
import type { VolumeTuning } from '../../src/volume/tuning.js';
import { gate, HookedStore, ioError, sleep } from '../support/hooked-store.js';
import { BLOCK, patternBlock, VolumeHarness } from '../support/volume-harness.js';
import { snapshotOf } from '../support/volume-parser.js';

let harness: VolumeHarness;
const stores: HookedStore[] = [];
let onStore: (store: HookedStore) => void = () => undefined;
afterEach(async () => {
  await harness.destroy();
  stores.length = 0;
  onStore = () => undefined;
});

async function hooked(tuning: Partial<VolumeTuning>): Promise<HookedStore> {
  harness = await VolumeHarness.create({
    tuning,
    store: async (path) => {
      const store = new HookedStore(await FsStore.open(path, { create: true }));
      stores.push(store);
      onStore(store);
      return store;
    },
  });
  return stores[0];
}

const failSegmentWrites = async (name: string, position: number): Promise<void> => {
  if (name.startsWith('seg-') && position > 0) throw ioError('write');
};

it('a bad sector late in the tail refuses the volume, and leaves no rejection that nobody handles', async () => {
  await hooked({ segmentSlots: 4096, checkpointSlots: 1e6, bufferAgeMs: 1e8 });
  const image = await mkdtemp(join(tmpdir(), 'sealbd-tail-'));
  const unhandled: unknown[] = [];
  const listener = (error: unknown): number => unhandled.push(error);
  process.on('unhandledRejection', listener);
  try {
    for (let lba = 0; lba < 2000; lba++) await harness.write(lba * BLOCK, patternBlock(lba, 1));
    await harness.volume.flush();
    await mkdir(image, { recursive: true });
    for (const [name, bytes] of await snapshotOf(harness.path)) await writeFile(join(image, name), bytes);
    await harness.stop();
    onStore = (store) => {
      store.onRead = async (name, position) => {
        if (name.startsWith('seg-') && position > 4096 + 400 * 4128) throw ioError('read');
      };
    };
    await expect(harness.open(false, image)).rejects.toThrow('injected');
    await sleep(50);
    expect(unhandled).toEqual([]);
  } finally {
    process.off('unhandledRejection', listener);
    await rm(image, { recursive: true, force: true });
  }
});

it('a stop waits for the checkpoint that is being published, even of a failed volume', async () => {
  const store = await hooked({ segmentSlots: 64, checkpointSlots: 256, garbageRatio: 0.99 });
  const publishing = gate();
  let reached = false;
  store.onReplace = async (name) => {
    if (name !== 'checkpoint') return;
    reached = true;
    await publishing.opened;
  };
  for (let version = 1; !reached; version++) {
    for (let lba = 0; lba < 32; lba++) await harness.write(lba * BLOCK, patternBlock(lba, version));
    await sleep(2);
  }
  store.onWrite = failSegmentWrites;
  await harness.write(0, patternBlock(0, 999));
  await expect(harness.volume.flush()).rejects.toThrow();
  expect(harness.volume.state).toBe('failed');
  let stopped = false;
  const stopping = harness.stop().then(() => {
    stopped = true;
  });
  await sleep(100);
  expect(stopped).toBe(false);
  publishing.open();
  await stopping;
  const published = store.replaced.length;
  await harness.open();
  await sleep(50);
  expect(store.replaced.length).toBe(published);
  expect(harness.volume.state).toBe('serving');
});

it('compaction on a disk whose writes fail ends, and so does a stop', async () => {
  const store = await hooked({ segmentSlots: 2048, checkpointSlots: 1e6, garbageRatio: 0.99, sparesMax: 0 });
  for (let lba = 0; lba < 4096; lba++) await harness.write(lba * BLOCK, patternBlock(lba, 1));
  for (let lba = 0; lba < 4096; lba += 4) await harness.write(lba * BLOCK, patternBlock(lba, 2));
  await harness.volume.checkpoint();
  store.onWrite = failSegmentWrites;
  await expect(harness.volume.compact()).rejects.toThrow();
  expect(harness.volume.state).toBe('failed');
  const before = performance.now();
  await harness.stop();
  expect(performance.now() - before).toBeLessThan(5000);
});

/** Writes until one waits since the tail is as long as it may be: checkpoints fail. */
async function fillTail(): Promise<{ store: HookedStore; last: Promise<void> }> {
  const store = await hooked({ segmentSlots: 1024, checkpointSlots: 1024, garbageRatio: 0.99 });
  store.onWrite = async (name) => {
    if (name.startsWith('map-')) throw ioError('write');
  };
  let done = 0;
  let waiting = false;
  let last: Promise<void> = Promise.resolve();
  while (!waiting) {
    last = harness.write(((done * 7919) % 16384) * BLOCK, patternBlock(0, done));
    waiting = await Promise.race([last.then(() => false), sleep(300).then(() => true)]);
    done++;
    expect(harness.volume.stats().tailBytes / 4128).toBeLessThanOrEqual(3 * 1024);
  }
  return { store, last };
}

it('the tail stays within its bound while checkpoints fail, and writing goes on when they work again', async () => {
  const { store, last } = await fillTail();
  await sleep(1500); // Another attempt fails meanwhile.
  expect(harness.volume.stats().tailBytes / 4128).toBeLessThanOrEqual(3 * 1024);
  store.onWrite = async () => undefined;
  await last;
  expect(harness.volume.state).toBe('serving');
});

it('a checkpoint that somebody asked for, and that fails, takes no retry from those who wait', async () => {
  const { store, last } = await fillTail();
  await expect(harness.volume.checkpoint()).rejects.toThrow('injected');
  store.onWrite = async () => undefined;
  await last;
  expect(harness.volume.state).toBe('serving');
});
