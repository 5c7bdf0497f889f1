/** Deleting a snapshot while checkpoints fail: it is there, whole, or it is gone. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { gate, type HookedStore, hooked, ioError } from '../support/hooked-store.js';
import { rejection } from '../support/rotating-volume.js';
import { readSnapshot } from '../support/snapshot-reader.js';
import { BLOCK, patternBlock, VolumeHarness } from '../support/volume-harness.js';

const BLOCKS = 64;

let harness: VolumeHarness;
let store: HookedStore;

beforeEach(async () => {
  harness = await VolumeHarness.create({
    sizeBytes: BLOCKS * BLOCK,
    store: hooked((opened) => {
      store = opened;
    }),
  });
  await fill(1);
  await harness.volume.createSnapshot('a');
  await fill(2);
});
afterEach(() => harness.destroy());

const fill = (version: number): Promise<void> => harness.fill(version, 0, BLOCKS);

async function expectVolume(version: number): Promise<void> {
  for (let lba = 0; lba < BLOCKS; lba++)
    expect([lba, Buffer.compare(await harness.read(lba * BLOCK, BLOCK), patternBlock(lba, version))]).toEqual(
      [lba, 0],
    );
}

const listed = () => harness.volume.snapshots.list().map(({ name, problem }) => [name, problem]);

/** A checkpoint that is past its cut, and goes on when it is let. */
async function checkpointOnItsWay() {
  const [reached, waiting] = [gate(), gate()];
  store.onCreate = async (name) => {
    if (!name.startsWith('map-')) return;
    reached.open();
    await waiting.opened;
  };
  const ended = harness.volume.checkpoint();
  await reached.opened;
  return { ended, go: waiting.open };
}

/** The `nth` root from now on is not written. */
function failRoot(nth: number): void {
  let roots = 0;
  store.onReplace = async (name) => {
    if (name === 'checkpoint' && ++roots === nth) throw ioError('write');
  };
}

async function expectGone(): Promise<void> {
  expect(listed()).toEqual([]);
  await harness.volume.checkpoint();
  await harness.volume.createSnapshot('a');
  await harness.reopen();
  expect(listed()).toEqual([['a', undefined]]);
  await harness.volume.deleteSnapshot('a');
  await harness.volume.compact();
  const found = await harness.volume.verify({
    signal: new AbortController().signal,
    onProgress: () => undefined,
  });
  expect(found.problems).toEqual([]);
  await expectVolume(2);
}

describe('a snapshot that is deleted', () => {
  it('is there, whole, where the root that leaves it out is not written', async () => {
    failRoot(1);
    expect(await rejection(harness.volume.deleteSnapshot('a'))).toMatchObject({ code: 'EIO' });
    expect(listed()).toEqual([['a', undefined]]);
    await harness.reopen();
    expect(listed()).toEqual([['a', undefined]]);
    const bytes = await readSnapshot(harness.volume, 'a', harness.io);
    for (let lba = 0; lba < BLOCKS; lba++)
      expect(Buffer.compare(bytes.subarray(lba * BLOCK, (lba + 1) * BLOCK), patternBlock(lba, 1))).toBe(0);
    await harness.volume.deleteSnapshot('a');
    await expectGone();
  });

  it('is gone where a checkpoint past its cut left it out, though its own one fails', async () => {
    const checkpoint = await checkpointOnItsWay();
    failRoot(2);
    const deleted = harness.volume.deleteSnapshot('a');
    checkpoint.go();
    await checkpoint.ended;
    await deleted;
    await expectGone();
  });

  it('is gone where a checkpoint that came after its own failed one left it out', async () => {
    const reached = gate();
    const waiting = gate();
    let roots = 0;
    store.onReplace = async (name) => {
      if (name !== 'checkpoint' || ++roots !== 1) return;
      reached.open();
      await waiting.opened;
      throw ioError('write');
    };
    const deleted = harness.volume.deleteSnapshot('a');
    await reached.opened;
    const after = harness.volume.checkpoint();
    waiting.open();
    await after;
    await deleted;
    await expectGone();
  });

  it('is gone where only the removal of its map files fails', async () => {
    let failures = 0;
    store.onRemove = async (name) => {
      if (name.startsWith('map-') && failures++ === 0) throw ioError('unlink');
    };
    await harness.volume.deleteSnapshot('a');
    expect(failures).toBeGreaterThan(0);
    await expectGone();
  });
});
