/** Power loss after every durable step of a backup and of a restore, and death: nothing half is ever taken for whole. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { openChain } from '../../src/backup/backup-directory.js';
import { isSealbdError } from '../../src/base/errors.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { FsStore } from '../../src/store/fs-store.js';
import { BackupSubject } from '../support/backup-subject.js';
import { makeBackup, restoreTo, storeAt, verify } from '../support/backups.js';
import { expectNoLeakedSlots, memoryDirectory } from '../support/key-fixtures.js';
import { PowerLossStore } from '../support/power-loss-store.js';
import { StepStore } from '../support/step-store.js';
import { seededRandom } from '../support/volume-harness.js';

const SEED = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);
const LOSSES_AT_MANIFEST = 12;
const cipher = new CipherPool({ threads: 1 });
afterAll(() => cipher.destroy());

/** The steps of `work` on a directory, and an image of what a power loss after each could leave. */
async function losses(
  path: string,
  work: (store: StepStore) => Promise<unknown>,
): Promise<{ images: string[]; steps: string[]; end: string }> {
  const random = seededRandom(SEED);
  const images: string[] = [];
  const steps: string[] = [];
  const lossy = new PowerLossStore(await FsStore.open(path, { create: true }));
  const lose = async (): Promise<string> => {
    const image = join(memoryDirectory(), 'image');
    await lossy.lose(image, random);
    return image;
  };
  const store = new StepStore(lossy);
  store.onStep = async (step) => {
    // Once the manifest may have its name, all else must have theirs.
    for (let i = 0; i < (step.includes('manifest') ? LOSSES_AT_MANIFEST : 1); i++) {
      steps.push(step);
      images.push(await lose());
    }
  };
  await work(store);
  return { images, steps, end: await lose() };
}

it(`a backup is whole, or none, after a power loss at any step, and can be made again, seed ${SEED}`, async () => {
  expectNoLeakedSlots();
  const source = await BackupSubject.create(2, cipher, SEED);
  await source.change(40);
  await source.backUp('b0');
  const touched = await source.change(12);
  const base = source.directory('b0');
  const then = source.versions.slice();
  const { images, steps, end } = await losses(source.directory('b1'), (to) => {
    return makeBackup(source, source.sealed, source.store, '', { base, to });
  });
  expect(touched.size).toBeGreaterThan(0);
  let whole = 0;
  for (const [i, image] of images.entries()) {
    try {
      // Its base is found by the path in the manifest.
      await openChain(image, storeAt);
    } catch (error) {
      if (!isSealbdError(error, 'INTEGRITY')) throw error;
      expect(readdirSync(image), steps[i]).not.toContain('manifest');
      if (i % 5 === 0) {
        const store = await FsStore.open(image);
        await makeBackup(source, source.sealed, source.store, image, { base, to: store });
        expect((await verify(source, image)).problems, steps[i]).toEqual([]);
        expect(readdirSync(image)).not.toContain('incomplete');
      }
      continue;
    }
    expect((await verify(source, image)).problems, steps[i]).toEqual([]);
    whole++;
  }
  expect(images.length - whole).toBeGreaterThan(5);
  expect(whole).toBeGreaterThan(0);
  expect((await verify(source, end)).problems).toEqual([]);
  const restored = await restoreTo(source, end, 'w');
  const copy = await source.restored(restored.path, then);
  await copy.expectContent();
  await copy.stop();
  await source.stop();
});

it(`a restored volume is durable, all of it, before it gets its name, seed ${SEED}`, async () => {
  expectNoLeakedSlots();
  const source = await BackupSubject.create(2, cipher, SEED + 1);
  await source.change(60);
  await source.backUp('b0');
  const { images, steps, end } = await losses(join(source.dataDirectory, 'volumes', 'w'), (store) => {
    return restoreTo(source, source.directory('b0'), 'w', { store });
  });
  // The root is the last file to come: without it nothing opens, and with it everything is there.
  const rootAt = steps.findIndex(
    (step) => step === 'rename checkpoint.tmp to checkpoint' || step === 'replace checkpoint',
  );
  expect(rootAt).toBeGreaterThan(10);
  const copy = await source.restored(end, source.versions.slice());
  await copy.expectContent();
  expect(readFileSync(join(end, 'superblock'))).toEqual(readFileSync(join(end, 'superblock.bak')));
  await copy.stop();
  for (const [i, image] of images.entries()) {
    if (i < rootAt) expect(readdirSync(image), steps[i]).not.toContain('checkpoint');
  }
  await source.stop();
});

it('a backup that fails or is cancelled leaves an empty directory, one that dies a directory that says so', async () => {
  expectNoLeakedSlots();
  const source = await BackupSubject.create(2, cipher, SEED + 2);
  await source.change(40);
  const abort = new AbortController();
  const store = new StepStore(await FsStore.open(source.directory('b0'), { create: true }));
  let synced = 0;
  store.onStep = async (step) => {
    if (step.startsWith('sync data-') && ++synced === 2) abort.abort();
  };
  await expect(source.backUp('b0', { to: store, signal: abort.signal })).rejects.toThrow();
  expect(readdirSync(source.directory('b0'))).toEqual([]);
  store.onStep = async (step) => {
    if (step.startsWith('sync data-')) throw Object.assign(new Error('injected'), { code: 'EIO' });
  };
  await expect(source.backUp('b0', { to: store })).rejects.toThrow('injected');
  expect(readdirSync(source.directory('b0'))).toEqual([]);
  // Dies: nothing is cleared any more.
  let dead = false;
  store.onStep = async (step) => {
    dead ||= step.startsWith('sync data-');
    if (dead) throw new Error('dead');
  };
  await expect(source.backUp('b0', { to: store })).rejects.toThrow('dead');
  expect(readdirSync(source.directory('b0'))).toContain('incomplete');
  await expect(verify(source, source.directory('b0'))).rejects.toMatchObject({ code: 'INTEGRITY' });
  await source.backUp('b0');
  await expect(source.backUp('b0')).rejects.toMatchObject({ code: 'CONFLICT' });
  expect((await verify(source, source.directory('b0'))).problems).toEqual([]);
  await source.stop();
});
