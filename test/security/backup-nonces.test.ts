/** Original, two restores of one backup, and a clone go on from the same state: no keystream is used twice. */
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, expect, it, vi } from 'vitest';
import { cloneSnapshot } from '../../src/backup/clone.js';
import { systemClock } from '../../src/base/clock.js';
import { formatUuid } from '../../src/base/random.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { originOf } from '../../src/keys/origins.js';
import { systemRandom } from '../../src/keys/random.js';
import { writeRestoredHeader } from '../../src/keys/restored-header.js';
import { FsStore } from '../../src/store/fs-store.js';
import { BackupSubject } from '../support/backup-subject.js';
import { keyProviders } from '../support/key-fixtures.js';
import { SealRecorder } from '../support/seal-recorder.js';
import { sharesKeystream } from '../support/slot-observer.js';
import { BLOCK } from '../support/volume-harness.js';
import { parseSegment, readFiles, slotBytes, slotsIn } from '../support/volume-parser.js';

const SEED = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);
/** Two plaintexts that differ in every byte; every write after the restores is of one of them. */
const ONE = new Uint8Array(BLOCK).map((_, i) => (i * 7) & 0xff);
const OTHER = ONE.map((byte) => byte ^ 0x5a);
const DIFFERENCE = ONE.map((byte, i) => byte ^ OTHER[i]);

const cipher = new CipherPool({ threads: 1 });
afterEach(() => vi.restoreAllMocks());
afterAll(() => cipher.destroy());

async function clone(source: BackupSubject, snapshot: string, name: string): Promise<string> {
  const path = join(source.dataDirectory, 'volumes', name);
  mkdirSync(path, { recursive: true });
  const store = await FsStore.open(path);
  const { superblock, deks: handles } = source.sealed.header;
  const pin = await source.volume.pin(snapshot);
  const header = await writeRestoredHeader({
    ...{
      store,
      handles,
      providers: keyProviders(source.dataDirectory),
      clock: systemClock,
      random: systemRandom,
    },
    ...{
      sizeBytes: pin.sizeBytes,
      suite: superblock.suite,
      plain: false,
      from: superblock,
      deks: superblock.deks,
    },
  });
  const { uuid, activeDek: dekId } = header.superblock;
  const signal = new AbortController().signal;
  const identity = { store, uuid, dekId, key: header.key, signal, onProgress: () => undefined };
  await cloneSnapshot({ ...identity, source: pin, from: source.store });
  header.release();
  await pin.release();
  return path;
}

/** Every slot in the files of these directories that is not a copy of another one. */
function slotsOf(paths: readonly string[]): Buffer[] {
  const distinct = new Map<string, Buffer>();
  for (const path of paths) {
    for (const bytes of readFiles(path).values()) {
      if (parseSegment(bytes) === undefined) continue;
      for (let position = 0; position < slotsIn(bytes); position++) {
        const slot = slotBytes(bytes, position);
        if (!slot.subarray(0, 64).equals(Buffer.alloc(64))) distinct.set(slot.toString('latin1'), slot);
      }
    }
  }
  return [...distinct.values()].map((slot) => slot.subarray(0, BLOCK));
}

it.each([2, 1] as const)(`no (key, counter) pair is used twice, suite %d, seed ${SEED}`, async (suite) => {
  const recorder = new SealRecorder().install();
  const source = await BackupSubject.create(suite, cipher, SEED + suite);
  await source.change(60);
  await source.rotate(false);
  await source.change(20);
  await source.backUp('b0');
  await source.volume.createSnapshot('s');
  const then = source.versions.slice();
  const paths = [
    (await source.restore('b0', 'w1')).path,
    (await source.restore('b0', 'w2')).path,
    await clone(source, 's', 'c'),
  ];
  const all = [source];
  for (const path of paths) all.push(await source.restored(path, then));
  await all[3].expectContent();
  expect(readdirSync(paths[2]).filter((name) => name.startsWith('seg-')).length).toBeGreaterThan(2);

  // The same writes at the same places, in the same order, with one plaintext or the other.
  for (let step = 0; step < 40; step++) {
    const lba = Math.floor(source.random() * 500);
    const count = 1 + Math.floor(source.random() * 10);
    for (const volume of all) await volume.writeBlocks(lba, count, source.random() < 0.5 ? ONE : OTHER);
    if (step % 10 === 9) for (const volume of all) await volume.volume.flush();
  }
  for (const volume of all) await volume.volume.compact();
  for (const volume of all.slice(1)) await volume.rotate(false);
  await source.rotate(false);
  for (const volume of all) await volume.writeBlocks(7, 8, source.random() < 0.5 ? ONE : OTHER);
  for (const volume of all) await volume.volume.flush();
  expect(recorder.repeats).toEqual([]);
  expect(recorder.positions).toBeGreaterThan(1000);
  expect(sharesKeystream(slotsOf([source.store.path, ...paths]), DIFFERENCE)).toBe(false);

  // Each has DEKs of its own from number 3 on; 1 and 2 are the original's.
  const superblocks = all.map(({ sealed }) => sealed.header.superblock);
  const origins = superblocks.map((superblock) =>
    [1, 2, 3].map((id) => formatUuid(originOf(superblock, id))),
  );
  const [original] = superblocks.map(({ uuid }) => formatUuid(uuid));
  for (const [i, names] of origins.entries())
    expect(names).toEqual([original, original, formatUuid(superblocks[i].uuid)]);
  for (const volume of all) await volume.stop();
});
