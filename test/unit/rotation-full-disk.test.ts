/** A rotation where the disk has no room. */
import { readdirSync } from 'node:fs';
import { expect, it } from 'vitest';
import { diskFull } from '../support/hooked-store.js';
import { RotatingVolume, rejection } from '../support/rotating-volume.js';
import { BLOCK } from '../support/volume-harness.js';

const BLOCKS = 65_536;
/** A map that is larger than a file of the reserve. */
const MAPPED = 16_000;

async function withLargeMap(suite: 0 | 2): Promise<RotatingVolume> {
  const subject = await RotatingVolume.create({ suite, blocks: BLOCKS, tuning: { segmentSlots: 2048 } });
  const lbas = Array.from({ length: MAPPED }, (_, i) => (i * 7919) % BLOCKS);
  await subject.write(1, ...lbas);
  await subject.volume.checkpoint();
  return subject;
}

/** No new file is made from here on, of those that `full` says; the result makes room. */
function fillDisk({ store }: RotatingVolume, full: (name: string) => boolean): () => void {
  store.onCreate = async (name) => {
    if (full(name)) throw diskFull();
  };
  return () => {
    store.onCreate = async () => undefined;
  };
}

const isMap = (name: string): boolean => name.startsWith('map-');

it('leaves the old map where it is, keeps its DEK as long, and lets go of both when there is room', async () => {
  const subject = await withLargeMap(2);
  const makeRoom = fillDisk(subject, isMap);
  await subject.rotate();
  expect(subject.deks).toEqual(['1 retired', '2 active']);
  await subject.write(2, ...Array.from({ length: 64 }, (_, i) => i));
  await subject.expectData();
  // Nothing but the old map is under DEK 1 once its segments are gone.
  await subject.volume.trim(0, BLOCKS * BLOCK);
  for (let lba = 0; lba < BLOCKS; lba++) subject.forget(lba);
  await subject.write(3, ...Array.from({ length: 64 }, (_, i) => i));
  while (subject.volume.segmentsByDek().has(1)) await subject.volume.checkpoint();
  expect(subject.volume.deksInUse()).toEqual(new Set([1, 2]));
  expect(await subject.dropOld()).toEqual([]);
  await subject.stop();
  await subject.open();
  expect(subject.deks).toEqual(['1 retired', '2 active']);
  await subject.expectData();
  makeRoom();
  await subject.rewrite();
  expect(subject.volume.deksInUse()).toEqual(new Set([2]));
  expect(await subject.dropOld()).toEqual([1]);
  await subject.expectData();
  subject.expectAllUnder(2);
});

it('of a none volume is not over while map files are under the public key', async () => {
  const subject = await withLargeMap(0);
  const makeRoom = fillDisk(subject, isMap);
  expect((await rejection(subject.convert())).code).toBe('ENOSPC');
  expect(subject.deks).toEqual(['1 pending']);
  expect([subject.header.superblock.activeDek, subject.volume.isSwitched]).toEqual([0, false]);
  await subject.expectData();
  makeRoom();
  await untilWhole(subject);
  await subject.convert();
  expect(subject.deks).toEqual(['1 active']);
  await subject.rewrite();
  await subject.dropOld();
  expect([subject.plainFiles, subject.header.superblock.plain]).toEqual([[], false]);
  await subject.expectData();
  subject.expectAllUnder(1);
});

/** A disk that had no room for all of the map is asked again only every so many checkpoints. */
async function untilWhole({ volume }: RotatingVolume): Promise<void> {
  for (let attempt = 0; attempt < 32 && !volume.isSwitched; attempt++) await volume.checkpoint();
  expect(volume.isSwitched).toBe(true);
}

it('does not overwrite a map file that a checkpoint makes of the reserve meanwhile', async () => {
  const subject = await RotatingVolume.create();
  await subject.fill(1, 0, 40);
  await subject.volume.checkpoint();
  fillDisk(subject, (name) => isMap(name) || name.startsWith('reserve'));
  for (let lba = 1; lba < 3; lba++) {
    await subject.write(2, lba);
    await subject.volume.checkpoint();
  }
  let met = 0;
  subject.store.onWrite = async (name) => {
    if (!name.startsWith('reserve-map') || met++ > 0) return;
    await subject.write(2, 4);
    await subject.volume.checkpoint();
  };
  await subject.rotate();
  expect(met).toBeGreaterThan(0);
  await subject.volume.flush();
  await subject.stop();
  await subject.open();
  expect(subject.deks).toEqual(['1 retired', '2 active']);
  await subject.expectData();
});

it('does not overwrite a segment that compaction makes of the reserve meanwhile', async () => {
  const subject = await RotatingVolume.create({ tuning: { sparesMax: 0, garbageRatio: 2 } });
  await subject.fill(1, 0, 400);
  await subject.write(2, ...Array.from({ length: 200 }, (_, i) => i * 2));
  await subject.volume.checkpoint();
  fillDisk(subject, (name) => !isMap(name));
  await subject.volume.compact();
  let met = 0;
  subject.store.onWrite = async (name) => {
    if (!/^reserve-\d+$/.test(name) || met++ > 0) return;
    await subject.fill(3, 0, 60);
    await subject.volume.compact().catch(() => undefined); // Out of room it may be; nothing may be lost.
  };
  await subject.rotate();
  await subject.volume.flush();
  expect(met).toBeGreaterThan(0);
  await subject.expectData();
  subject.store.onWrite = async () => undefined;
  await subject.stop();
  await subject.open();
  await subject.expectData();
});

it('hands a client no spare file that holds something under the old DEK', async () => {
  const subject = await RotatingVolume.create();
  for (let version = 1; version < 7; version++) {
    await subject.fill(version, 0, 128);
    await subject.volume.checkpoint();
  }
  const spares = readdirSync(subject.path).filter((name) => name.startsWith('spare'));
  expect(spares.length).toBe(2);
  const taken: string[] = [];
  let met = false;
  subject.store.onRemove = async (name) => {
    if (met || !spares.includes(name)) return;
    met = true;
    // Two segments of writes between the switch of the DEK and the end of the purge.
    await subject.fill(9, 200, 328);
    await subject.volume.flush();
    taken.push(...spares.filter((spare) => spare !== name && !readdirSync(subject.path).includes(spare)));
  };
  await subject.rotate(true);
  expect([met, taken]).toEqual([true, []]);
  await subject.rewrite();
  await subject.dropOld();
  await subject.expectData();
  subject.expectAllUnder(2);
});
