/** Who writes little does not wait for all that others have buffered. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { FsStore } from '../../src/store/fs-store.js';
import { type Gate, gate, HookedStore } from '../support/hooked-store.js';
import { BLOCK, patternBlock, VolumeHarness } from '../support/volume-harness.js';

const LARGE = 1024 * 1024;
const BUFFERS = 3;

let harness: VolumeHarness;
let disk: Gate;

beforeEach(async () => {
  disk = gate();
  harness = await VolumeHarness.create({
    sizeBytes: 64 * LARGE,
    tuning: {
      segmentSlots: 8192,
      checkpointSlots: 100_000,
      bufferAgeMs: 1_000_000,
      appendBuffers: BUFFERS,
    },
    store: async (path) => {
      const store = new HookedStore(await FsStore.open(path, { create: true }));
      store.onWrite = async (name, position) => {
        if (name.startsWith('seg-') && position > 0 && !name.endsWith('.tmp')) await disk.opened;
      };
      return store;
    },
  });
});

afterEach(async () => {
  disk.open();
  await harness.destroy();
});

it('a small write is done while large ones wait for a disk that takes nothing', async () => {
  const { volume, io } = harness;
  const large: Promise<void>[] = [];
  let waiting = 0;
  for (let i = 0; i < 4 * BUFFERS; i++) {
    const write = Promise.resolve(volume.write(io, 0, (i + 1) * LARGE, LARGE));
    waiting += 1;
    large.push(
      write.then(() => {
        waiting -= 1;
      }),
    );
  }
  for (let version = 1; version <= 20; version++) await harness.write(0, patternBlock(0, version));
  expect(waiting).toBeGreaterThan(BUFFERS);
  disk.open();
  await Promise.all(large);
  expect(await harness.read(0, BLOCK)).toEqual(patternBlock(0, 20));
});
