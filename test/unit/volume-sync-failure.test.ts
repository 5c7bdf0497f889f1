/** fdatasync failed: nobody knows what the disk holds, and trying again proves nothing. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FsStore } from '../../src/store/fs-store.js';
import type { Store } from '../../src/store/store.js';
import { HookedStore } from '../support/hooked-store.js';
import { PowerLossStore } from '../support/power-loss-store.js';
import { BLOCK, patternBlock, VolumeHarness } from '../support/volume-harness.js';
import { snapshotOf } from '../support/volume-parser.js';

const FAILED = { code: 'EIO', message: expect.stringContaining('injected: fdatasync failed') };

describe('after an fdatasync that failed', () => {
  let harness: VolumeHarness;
  let store: PowerLossStore | undefined;
  /** The store for opening it again. */
  let again: (inner: FsStore) => Store = (inner) => inner;
  /** The files as the medium has them. */
  let flushed: ReadonlyMap<string, Uint8Array>;

  const failSyncs = (fail: boolean): void => {
    if (store !== undefined) store.syncFails = fail;
  };

  beforeEach(async () => {
    harness = await VolumeHarness.create({
      store: async (path) => {
        const inner = await FsStore.open(path, { create: true });
        // Only what was made through it can be opened through it: a reopened volume gets another one.
        if (store !== undefined && store.path === path) return again(inner);
        store = new PowerLossStore(inner);
        return store;
      },
    });
    await harness.write(0, patternBlock(0, 1));
    await harness.volume.flush();
    flushed = await snapshotOf(harness.path);
    await harness.write(BLOCK, patternBlock(1, 2));
    failSyncs(true);
    await expect(harness.volume.flush()).rejects.toMatchObject(FAILED);
  });

  afterEach(() => harness.destroy());

  it('the volume is failed, and says why', () => {
    expect(harness.volume.state).toBe('failed');
    expect(harness.volume.failure).toContain('injected: fdatasync failed');
  });

  it('every change is refused, even when the disk is well again', async () => {
    failSyncs(false);
    const { volume, io } = harness;
    const changes = [
      () => volume.write(io, 0, 0, BLOCK),
      () => volume.trim(0, BLOCK),
      () => volume.zero(0, BLOCK),
      () => volume.flush(),
      () => volume.resize(BLOCK),
      () => volume.checkpoint(),
      () => volume.compact(),
    ];
    for (const change of changes) await expect((async () => change())()).rejects.toMatchObject(FAILED);
    expect(volume.state).toBe('failed');
  });

  it('reads go on, of what was flushed and of what was not', async () => {
    expect(await harness.read(0, BLOCK)).toEqual(patternBlock(0, 1));
    expect(await harness.read(BLOCK, BLOCK)).toEqual(patternBlock(1, 2));
  });

  it('flushes that waited behind it fail too, and are not told that a later sync worked', async () => {
    const waiting = Promise.allSettled([harness.volume.flush(), harness.volume.flush()]);
    failSyncs(false);
    expect((await waiting).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  });

  it('opening it again takes nothing from the page cache that the medium does not have', async () => {
    failSyncs(false);
    await harness.stop();
    again = (inner) => {
      const hooks = new HookedStore(inner);
      // As the kernel does: a page whose write failed is clean, so it is dropped and read again.
      hooks.onReload = (name) => writeFile(join(harness.path, name), flushed.get(name)!);
      return hooks;
    };
    await harness.open(false);
    expect(await harness.read(0, BLOCK)).toEqual(patternBlock(0, 1));
    expect(await harness.read(BLOCK, BLOCK)).toEqual(new Uint8Array(BLOCK));
    await harness.write(BLOCK, patternBlock(1, 3));
    await harness.reopen();
    expect(await harness.read(BLOCK, BLOCK)).toEqual(patternBlock(1, 3));
  });

  it('opening it again serves what was flushed', async () => {
    failSyncs(false);
    await harness.stop();
    await harness.open(false);
    expect(harness.volume.state).toBe('serving');
    expect(await harness.read(0, BLOCK)).toEqual(patternBlock(0, 1));
    await harness.write(BLOCK, patternBlock(1, 3));
    await harness.volume.flush();
    expect(await harness.read(BLOCK, BLOCK)).toEqual(patternBlock(1, 3));
  });
});
