/** Plaintext of a converted volume: overwritten beside everything else, and never forgotten. */
import { closeSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { nullLogger } from '../../src/base/log.js';
import { FsStore } from '../../src/store/fs-store.js';
import { Eraser } from '../../src/volume/eraser.js';
import { VolumeKeys } from '../../src/volume/volume-keys.js';
import { gate, HookedStore, ioError } from '../support/hooked-store.js';
import { memoryDirectory } from '../support/key-fixtures.js';
import { ManualClock } from '../support/manual-clock.js';
import { RotatingVolume, rejection } from '../support/rotating-volume.js';
import { until } from '../support/until.js';
import { BLOCK } from '../support/volume-harness.js';

async function eraserOf(...names: string[]) {
  const path = memoryDirectory();
  const store = new HookedStore(await FsStore.open(path));
  const clock = new ManualClock();
  for (const name of names) writeFileSync(join(path, name), Buffer.alloc(3 << 20, 0x5a));
  const release = (name: string): Promise<void> => store.remove(name);
  return { path, store, clock, eraser: new Eraser({ store, clock, log: nullLogger, release }) };
}

/** A `none` volume of many segments, switched to its first DEK. */
async function converting(): Promise<RotatingVolume> {
  const subject = await RotatingVolume.create({ suite: 0 });
  await subject.fill(1, 0, 1500);
  await subject.volume.checkpoint();
  await subject.convert();
  return subject;
}

/** What overwrites the segments of before waits at the gate. */
function holdErasing({ store, segments }: RotatingVolume) {
  const erasing = gate();
  const old = new Set(segments);
  let pieces = 0;
  store.onWrite = async (name) => {
    if (!old.has(name)) return;
    pieces++;
    await erasing.opened;
  };
  return { erasing, pieces: () => pieces };
}

it('a file is removed only when it is overwritten', async () => {
  const { path, store, eraser } = await eraserOf('seg-a');
  let content: Buffer | undefined;
  store.onRemove = async (name) => {
    content = readFileSync(join(path, name));
  };
  eraser.add('seg-a');
  expect(eraser.pending).toBe(1);
  await until('it is erased', () => eraser.pending === 0);
  expect(content!.equals(Buffer.alloc(3 << 20))).toBe(true);
  expect(readdirSync(path)).toEqual([]);
});

it('a file that can not be overwritten is tried again each second, and keeps no other from being erased', async () => {
  const { path, store, clock, eraser } = await eraserOf('seg-a', 'seg-b');
  let attempts = 0;
  store.onWrite = async (name) => {
    if (name !== 'seg-a') return;
    attempts++;
    throw ioError('write');
  };
  eraser.add('seg-a');
  await until('the first attempt is over', () => eraser.failure !== undefined);
  expect([attempts, eraser.failure]).toEqual([1, expect.stringContaining('seg-a')]);
  eraser.add('seg-b');
  clock.advance(1000);
  await until('the other one is erased', () => eraser.pending === 1);
  expect([attempts, readdirSync(path)]).toEqual([2, ['seg-a']]);
  store.onWrite = async () => undefined;
  await until('the next attempt has done it', () => {
    clock.advance(1000);
    return eraser.pending === 0 && eraser.failure === undefined;
  });
  expect(readdirSync(path)).toEqual([]);
});

it('a file that is not there needs no erasing', async () => {
  const { eraser } = await eraserOf();
  eraser.add('seg-a');
  await until('it is forgotten', () => eraser.pending === 0);
  expect(eraser.failure).toBeUndefined();
});

it('a conversion is not over while a file of plaintext can not be overwritten, and ends once it can', async () => {
  const subject = await converting();
  const [bad] = subject.segments;
  subject.store.onWrite = async (name) => {
    if (name === bad) throw ioError('write');
  };
  const error = await rejection(subject.rewrite());
  expect([error.code, error.message]).toEqual(['EIO', expect.stringContaining(bad)]);
  expect(await subject.dropOld()).toEqual([]);
  expect(subject.header.superblock).toMatchObject({ plain: true, rewriting: true });
  await until('all others are erased', () => subject.plainFiles.length === 1);
  expect(subject.plainFiles).toEqual([bad]);
  subject.store.onWrite = async () => undefined;
  // The failure is told until the next attempt, a second later.
  await until('the next attempt has done it', () => subject.plainFiles.length === 0);
  await until('that is noticed', () => !subject.volume.deksInUse().has(0));
  await subject.rewrite();
  await subject.dropOld();
  expect(subject.header.superblock).toMatchObject({ plain: false, rewriting: false });
  await subject.expectData();
});

it('a client does not wait for the erasing, nor does a checkpoint', async () => {
  const subject = await converting();
  const { erasing, pieces } = holdErasing(subject);
  await subject.volume.trim(0, 1500 * BLOCK);
  for (let lba = 0; lba < 1500; lba++) subject.forget(lba);
  await subject.volume.checkpoint();
  await until('the erasing is held up', () => pieces() > 0);
  // Far more than the tail may have before writers wait for a checkpoint.
  const before = subject.volume.stats().checkpoints;
  for (let version = 2; version < 8; version++) await subject.fill(version, 0, 512);
  await subject.volume.checkpoint();
  expect(subject.volume.stats().checkpoints).toBeGreaterThan(before);
  expect(subject.volume.deksInUse().has(0)).toBe(true);
  erasing.open();
  await subject.rewrite();
  await subject.dropOld();
  expect(subject.plainFiles).toEqual([]);
  await subject.expectData();
});

it('a stop ends the erasing at its next piece, and the next opening goes on with it', async () => {
  const subject = await converting();
  const { erasing, pieces } = holdErasing(subject);
  await subject.volume.trim(0, 1500 * BLOCK);
  for (let lba = 0; lba < 1500; lba++) subject.forget(lba);
  await subject.volume.checkpoint();
  await until('the erasing is held up', () => pieces() === 1);
  const stopping = subject.stop();
  erasing.open();
  await stopping;
  // Each file is one piece here.
  expect(pieces()).toBe(1);
  const left = subject.plainFiles;
  expect(left.length).toBeGreaterThan(1);
  // What is unlinked without being overwritten stays readable here.
  const kept = new Map(left.map((name) => [name, openSync(subject.file(name), 'r')]));
  await subject.open();
  expect(subject.header.superblock).toMatchObject({ plain: true, rewriting: true });
  await subject.rewrite();
  await subject.dropOld();
  expect(subject.plainFiles).toEqual([]);
  expect(left.filter((name) => readFileSync(kept.get(name)!).some((byte) => byte !== 0))).toEqual([]);
  for (const file of kept.values()) closeSync(file);
  expect(subject.header.superblock).toMatchObject({ plain: false, rewriting: false });
});

it('after a conversion nothing can be authenticated with the public key any more', async () => {
  const keep = vi.spyOn(VolumeKeys.prototype, 'keep');
  try {
    const subject = await converting();
    await subject.rewrite();
    await subject.dropOld();
    const [keys] = keep.mock.contexts as VolumeKeys[];
    expect([...keys.handles.keys()]).toEqual([1]);
    expect([keys.plain, keys.trusts(0)]).toEqual([false, false]);
    await subject.expectData();
  } finally {
    keep.mockRestore();
  }
});
