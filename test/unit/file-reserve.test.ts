import { linkSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { nullLogger } from '../../src/base/log.js';
import { FsStore } from '../../src/store/fs-store.js';
import { Eraser } from '../../src/volume/eraser.js';
import { FileReserve, overwrite } from '../../src/volume/file-reserve.js';
import { gate, HookedStore, ioError } from '../support/hooked-store.js';
import { memoryDirectory } from '../support/key-fixtures.js';

const FILE_BYTES = 3 << 20;

/** A reserve of two files, and the DEK that seals, which the test moves. */
async function reserveOf(...dekIds: number[]) {
  const path = memoryDirectory();
  const store = new HookedStore(await FsStore.open(path));
  const sealing = { id: 1 };
  const reserve = new FileReserve({
    ...{ store, prefix: 'reserve', fileBytes: FILE_BYTES, max: 2 },
    sealing: () => sealing.id,
  });
  const bytesOf = (name: string) => readFileSync(join(path, name));
  const add = (name: string, dekId: number) => writeFileSync(join(path, name), fileUnder(dekId));
  for (const [i, dekId] of dekIds.entries()) {
    add(`seg-${i}`, dekId);
    expect(await reserve.put(`seg-${i}`)).toBe(true);
  }
  return { path, store, sealing, reserve, bytesOf, add };
}

/** Something under a DEK: the head names it, the rest is no zeros. */
function fileUnder(dekId: number): Buffer {
  const bytes = Buffer.alloc(FILE_BYTES, 0x5a);
  bytes.writeUInt32LE(dekId, 12);
  return bytes;
}

const isBlank = (bytes: Buffer): boolean => bytes.equals(Buffer.alloc(FILE_BYTES));

it('a file that is being overwritten is out of reach, and one that is taken meanwhile is left alone', async () => {
  const { store, sealing, reserve, bytesOf } = await reserveOf(1, 1);
  const writing = gate();
  const reached = gate();
  store.onWrite = async (name) => {
    if (!name.startsWith('reserve-')) return;
    reached.open();
    await writing.opened;
  };
  sealing.id = 2;
  const purging = reserve.purge('overwrite');
  await reached.opened;
  // A checkpoint that was cut before the switch still writes under DEK 1.
  const taken = await reserve.take('map-1', 1);
  expect(taken).toBeDefined();
  expect(await reserve.take('map-2', 1)).toBeUndefined();
  writing.open();
  await purging;
  await taken!.close();
  expect(bytesOf('map-1').equals(fileUnder(1))).toBe(true);
  expect(reserve.count).toBe(1);
  const blank = await reserve.take('map-2', 2);
  await blank!.close();
  expect(isBlank(bytesOf('map-2'))).toBe(true);
});

it('a file that holds something under another DEK is handed out only once it is overwritten', async () => {
  const { sealing, reserve, bytesOf } = await reserveOf(1, 1);
  sealing.id = 2;
  expect(await reserve.take('seg-a', 2)).toBeUndefined();
  await reserve.purge('overwrite');
  for (const name of ['seg-a', 'seg-b']) {
    const file = await reserve.take(name, 2);
    await file!.close();
    expect(isBlank(bytesOf(name))).toBe(true);
  }
});

it('a file under the DEK that seals, and one that is blank, stay as they are', async () => {
  const { sealing, reserve, bytesOf } = await reserveOf(1, 0);
  sealing.id = 1;
  await reserve.purge('overwrite');
  const [blank, own] = [await reserve.take('seg-a', 1), await reserve.take('seg-b', 1)];
  for (const file of [blank, own]) await file!.close();
  expect(bytesOf('seg-a').equals(fileUnder(0))).toBe(true);
  expect(bytesOf('seg-b').equals(fileUnder(1))).toBe(true);
});

it('a purge that removes leaves a file alone that was taken while it was at work', async () => {
  const { path, store, sealing, reserve } = await reserveOf(1, 1);
  const removing = gate();
  const reached = gate();
  store.onRemove = async () => {
    reached.open();
    await removing.opened;
  };
  sealing.id = 2;
  const purging = reserve.purge('remove');
  await reached.opened;
  const taken = await reserve.take('seg-a', 1);
  await taken!.close();
  removing.open();
  await purging;
  expect(readdirSync(path)).toEqual(['seg-a']);
});

it('a file under another DEK is not taken in', async () => {
  const { path, sealing, reserve, add } = await reserveOf(1);
  sealing.id = 2;
  add('seg-old', 1);
  expect(await reserve.put('seg-old')).toBe(false);
  expect(readdirSync(path)).toContain('seg-old');
});

it('a file under another DEK is taken in blank where its space is wanted', async () => {
  const { path, sealing, reserve, bytesOf, add } = await reserveOf(1);
  sealing.id = 2;
  add('seg-old', 1);
  expect(await reserve.putOverwritten('seg-old')).toBe(true);
  expect(readdirSync(path)).toEqual(['reserve-0', 'reserve-1']);
  expect(isBlank(bytesOf('reserve-1'))).toBe(true);
  const taken = await reserve.take('seg-new', 2);
  await taken!.close();
  add('seg-other', 1);
  await reserve.fill();
  expect([await reserve.putOverwritten('seg-other'), bytesOf('seg-other').equals(fileUnder(1))]).toEqual([
    false,
    true,
  ]);
});

it('a file that is not blank yet keeps its own name, whatever keeps it from getting blank', async () => {
  const { path, store, sealing, reserve, add } = await reserveOf(1);
  sealing.id = 2;
  add('seg-old', 1);
  store.onWrite = async () => {
    throw ioError('write');
  };
  expect(await reserve.putOverwritten('seg-old')).toBe(false);
  expect([reserve.count, readdirSync(path).sort()]).toEqual([1, ['reserve-0', 'seg-old']]);
});

it('a file that was under way into the reserve when the DEK changed does not stay there', async () => {
  const { path, store, sealing, reserve, add } = await reserveOf(1);
  add('seg-old', 1);
  const renaming = gate();
  const reached = gate();
  store.onRename = async () => {
    reached.open();
    await renaming.opened;
  };
  const putting = reserve.put('seg-old');
  await reached.opened;
  sealing.id = 2;
  await reserve.purge('remove');
  renaming.open();
  await putting;
  expect([reserve.count, readdirSync(path)]).toEqual([0, []]);
});

it('a file that can not be overwritten is let go of', async () => {
  const { path, store, sealing, reserve } = await reserveOf(1);
  store.onWrite = async () => {
    throw ioError('write');
  };
  sealing.id = 2;
  await reserve.purge('overwrite');
  expect([reserve.count, readdirSync(path)]).toEqual([0, []]);
});

it('what an earlier run left keeps its DEK in mind', async () => {
  const { store, sealing, reserve } = await reserveOf(1, 1);
  sealing.id = 2;
  const { path } = store;
  const next = new FileReserve({
    ...{ store, prefix: 'reserve', fileBytes: FILE_BYTES, max: 2 },
    sealing: () => 2,
  });
  await next.adopt(readdirSync(path));
  expect([reserve.count, next.count]).toEqual([2, 2]);
  expect(await next.take('seg-a', 2)).toBeUndefined();
});

it('the head of a file that is overwritten goes last, so that a crash on the way hides nothing', async () => {
  const { store, path, add } = await reserveOf();
  add('seg-a', 1);
  const positions: number[] = [];
  store.onWrite = async (_name, position) => {
    positions.push(position);
  };
  expect(await overwrite(store, 'seg-a')).toBe('blank');
  expect(positions.at(-1)).toBe(0);
  expect(positions.indexOf(0)).toBe(positions.length - 1);
  expect(isBlank(readFileSync(join(path, 'seg-a')))).toBe(true);
});

it('an overwriting that is ended leaves the head', async () => {
  const { store, bytesOf, add } = await reserveOf();
  add('seg-a', 1);
  let pieces = 0;
  expect(await overwrite(store, 'seg-a', () => pieces++ > 0)).toBe('ended');
  expect(bytesOf('seg-a').readUInt32LE(12)).toBe(1);
});

it('a file that another volume shares is neither taken in nor overwritten', async () => {
  const { path, store, reserve, add } = await reserveOf();
  add('seg-shared', 1);
  add('spare', 1);
  linkSync(join(path, 'seg-shared'), join(path, 'seg-of-a-clone'));
  expect(await reserve.put('seg-shared')).toBe(false);
  expect(await reserve.putOverwritten('seg-shared')).toBe(false);
  expect(await overwrite(store, 'seg-shared')).toBe('shared');
  // Nor where it got into the reserve by another way.
  linkSync(join(path, 'seg-shared'), join(path, 'reserve-7'));
  await reserve.adopt(['reserve-7']);
  expect(reserve.count).toBe(0);
  expect(readdirSync(path)).not.toContain('reserve-7');
  expect(readFileSync(join(path, 'seg-of-a-clone')).equals(fileUnder(1))).toBe(true);
  rmSync(join(path, 'seg-of-a-clone'));
  expect(await reserve.put('seg-shared')).toBe(true);
});

it('the eraser lets go of a file that another volume shares, and does not overwrite it', async () => {
  const { path, store, add } = await reserveOf();
  add('seg-shared', 0);
  linkSync(join(path, 'seg-shared'), join(path, 'seg-of-a-clone'));
  const release = async () => expect.unreachable('it is not blank');
  const eraser = new Eraser({ store, clock: systemClock, log: nullLogger, release });
  eraser.add('seg-shared');
  await vi.waitFor(() => expect(eraser.pending).toBe(0));
  expect(readdirSync(path)).toEqual(['seg-of-a-clone']);
  expect(readFileSync(join(path, 'seg-of-a-clone')).equals(fileUnder(0))).toBe(true);
});

it('a file that was linked on its way into the reserve is not handed out', async () => {
  const { path, store, reserve, add } = await reserveOf(1);
  add('seg-9', 1);
  store.onRename = async (from) => {
    if (from === 'seg-9') linkSync(join(path, from), join(path, 'of-a-clone'));
  };
  expect(await reserve.put('seg-9')).toBe(true);
  const taken = await reserve.take('seg-10', 1);
  expect(await taken!.links()).toBe(1);
  await taken!.close();
  expect(await reserve.take('seg-11', 1)).toBeUndefined();
  expect(readFileSync(join(path, 'of-a-clone')).equals(fileUnder(1))).toBe(true);
  expect(readdirSync(path).sort()).toEqual(['of-a-clone', 'seg-10']);
});
