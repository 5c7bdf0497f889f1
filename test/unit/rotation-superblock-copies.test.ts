/** A rotation where one of the two copies of the superblock can not be written. */
import { readFileSync, rmSync } from 'node:fs';
import { expect, it } from 'vitest';
import { goOn } from '../../src/daemon/dek-rotation.js';
import { addon } from '../../src/native/addon.js';
import { ioError } from '../support/hooked-store.js';
import { RotatingVolume } from '../support/rotating-volume.js';
import { parseSuperblock } from '../support/superblock-parser.js';

async function filled(): Promise<RotatingVolume> {
  const subject = await RotatingVolume.create();
  await subject.fill(1, 0, 40);
  await subject.volume.flush();
  return subject;
}

/** Copy 2 can not be written from here on; the result heals it. */
function breakCopy2({ store }: RotatingVolume): () => void {
  store.onReplace = async (name) => {
    if (name === 'superblock.bak') throw ioError('write');
  };
  return () => {
    store.onReplace = async () => undefined;
  };
}

const copy2 = (subject: RotatingVolume) => readFileSync(subject.file('superblock.bak'));

it('a second rotate, too, seals nothing under a DEK whose wrap lies in one copy only', async () => {
  const subject = await filled();
  breakCopy2(subject);
  for (let attempt = 1; attempt <= 2; attempt++) {
    await expect(subject.rotate()).rejects.toThrow('injected');
    expect(subject.deks).toEqual(['1 active', '2 pending']);
  }
  await subject.fill(2, 20, 60);
  await subject.volume.checkpoint();
  expect([...subject.volume.segmentsByDek().keys()]).toEqual([1]);
  await subject.stop();
  rmSync(subject.file('superblock'));
  await subject.open();
  expect(subject.deks).toEqual(['1 active']);
  await subject.expectData();
});

it('a rotate after copy 2 can be written again ends the one before', async () => {
  const subject = await filled();
  const heal = breakCopy2(subject);
  await expect(subject.rotate()).rejects.toThrow('injected');
  heal();
  await subject.rotate();
  expect(subject.deks).toEqual(['1 retired', '2 active']);
  expect(copy2(subject)).toEqual(readFileSync(subject.file('superblock')));
  await subject.expectData();
});

it('a volume with a pending DEK opens while copy 2 can not be written, and seals nothing under that DEK until it can', async () => {
  const subject = await filled();
  const heal = breakCopy2(subject);
  await expect(subject.rotate()).rejects.toThrow('injected');
  await subject.stop();
  await subject.open(subject.store);
  expect([subject.deks, subject.header.whole]).toEqual([['1 active', '2 pending'], false]);
  await subject.fill(2, 20, 60);
  await subject.volume.checkpoint();
  expect([...subject.volume.segmentsByDek().keys()]).toEqual([1]);
  await subject.stop();
  heal();
  await subject.open();
  expect(copy2(subject)).toEqual(readFileSync(subject.file('superblock')));
  expect(subject.deks).toEqual(['1 retired', '2 active']);
  await subject.expectData();
});

it('an open volume ends the rotation once copy 2 can be written again', async () => {
  const subject = await filled();
  const heal = breakCopy2(subject);
  await expect(subject.rotate()).rejects.toThrow('injected');
  await subject.stop();
  await subject.open(subject.store);
  heal();
  await goOn(subject.header, subject.volume, false);
  expect([subject.deks, subject.header.whole]).toEqual([['1 retired', '2 active'], true]);
  await subject.fill(2, 20, 60);
  await subject.stop();
  rmSync(subject.file('superblock'));
  await subject.open();
  await subject.expectData();
});

it('either copy opens the volume where copy 2 could not be written when the new DEK became the active one', async () => {
  const subject = await filled();
  let writes = 0;
  subject.store.onReplace = async (name) => {
    if (name === 'superblock.bak' && ++writes === 2) throw ioError('write');
  };
  await expect(subject.rotate()).rejects.toThrow('injected');
  expect(subject.deks).toEqual(['1 retired', '2 active']);
  await subject.fill(2, 20, 60);
  await subject.stop();
  rmSync(subject.file('superblock'));
  await subject.open();
  expect(subject.deks).toEqual(['1 retired', '2 active']);
  await subject.expectData();
});

it('an old DEK is wiped though copy 2 keeps its wrap, and a later try takes that away', async () => {
  const subject = await filled();
  await subject.rotate(true);
  await subject.rewrite();
  const old = subject.header.deks.get(1)!;
  addon.keyRetain(old);
  const wrapped = Buffer.from(subject.header.superblock.deks[0].wrapped);
  const heal = breakCopy2(subject);
  await expect(subject.dropOld()).rejects.toThrow('injected');
  const wiped = addon.keyIsRevoked(old);
  addon.keyRelease(old);
  expect([wiped, subject.deks]).toEqual([true, ['2 active']]);
  expect(subject.header.superblock.rewriting).toBe(false);
  expect([subject.header.whole, copy2(subject).includes(wrapped)]).toEqual([false, true]);
  heal();
  await subject.dropOld();
  expect([subject.header.whole, copy2(subject).includes(wrapped)]).toEqual([true, false]);
  expect(parseSuperblock(copy2(subject)).deks.map(({ id }) => id)).toEqual([2]);
  await subject.expectData();
});
