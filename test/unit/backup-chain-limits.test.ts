/** What `restore` would refuse for its length, or its number of DEKs, is not made. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { openChain } from '../../src/backup/backup-directory.js';
import { CHAIN_LIMITS } from '../../src/backup/chain-limits.js';
import { BACKUPS_PER_CHAIN_MAX, DEKS_PER_VOLUME_MAX } from '../../src/base/limits.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { addon } from '../../src/native/addon.js';
import { ended, scene } from '../support/backed-up.js';
import { BackupSubject } from '../support/backup-subject.js';
import { storeAt } from '../support/backups.js';

const cipher = new CipherPool({ threads: 1 });
afterAll(() => cipher.destroy());

const CONFLICT = { code: 'CONFLICT', message: expect.stringContaining('make a full backup') };

it('has the limits of restoring by itself, and keeps a place for a re-encryption', () => {
  expect(CHAIN_LIMITS).toMatchObject({ backupsMax: BACKUPS_PER_CHAIN_MAX, deksMax: DEKS_PER_VOLUME_MAX - 1 });
});

it('makes as many backups of a chain as can be opened, and not one more', async () => {
  const source = await BackupSubject.create(2, cipher, 1);
  const limits = { ...CHAIN_LIMITS, backupsMax: 3 };
  for (const i of [0, 1, 2]) {
    await source.change(5);
    const base = i === 0 ? {} : { base: source.directory(`b${i - 1}`) };
    await source.backUp(`b${i}`, { ...base, limits });
  }
  expect(await openChain(source.directory('b2'), storeAt, limits.backupsMax)).toHaveLength(3);
  const { path } = await source.restore('b2', 'w');
  const copy = await source.restored(path, source.versions);
  await copy.expectContent();
  await copy.stop();

  const base = source.directory('b2');
  await expect(source.backUp('b3', { base, limits })).rejects.toMatchObject(CONFLICT);
  expect(readdirSync(source.directory('b3'))).toEqual([]);
  await source.backUp('b3', { base });
  await expect(openChain(source.directory('b3'), storeAt, limits.backupsMax)).rejects.toMatchObject({
    code: 'INTEGRITY',
  });
  await source.stop();
});

it('makes what needs as many DEKs as a restored volume can have beside its own, and not one more', async () => {
  const source = await BackupSubject.create(2, cipher, 1);
  await source.change(5);
  await source.backUp('full');
  await source.rotate(false);
  await source.change(5);
  const base = source.directory('full');
  const limits = { ...CHAIN_LIMITS, deksMax: 2 };
  await expect(source.backUp('two', { base, limits })).rejects.toMatchObject(CONFLICT);
  expect(readdirSync(source.directory('two'))).toEqual([]);
  const reencrypt = { code: 'CONFLICT', message: expect.stringContaining('re-encrypt') };
  await expect(source.backUp('two', { limits })).rejects.toMatchObject(reencrypt);

  await source.backUp('two', { base, limits: { ...limits, deksMax: 3 } });
  const { path } = await source.restore('two', 'w');
  const copy = await source.restored(path, source.versions);
  expect(copy.sealed.header.superblock.deks).toHaveLength(3);
  await copy.stop();
  await source.stop();
});

it('is refused by the daemon before there is a job, a directory or a key in memory', async () => {
  const { watched, path, above, made } = await scene({ chainLimits: { ...CHAIN_LIMITS, backupsMax: 2 } });
  await made();
  const onto = (name: string, base: string) =>
    watched.backups.create('v', { path: join(above, name), base, salvage: false }, STARTUP);
  expect(await ended(watched, await onto('c', path))).toMatchObject({ state: 'done', error: null });
  const [jobs, slots] = [watched.jobs.list().length, addon.secureMemory().slotsUsed];
  await expect(onto('d', join(above, 'c'))).rejects.toMatchObject(CONFLICT);
  expect([watched.jobs.list().length, addon.secureMemory().slotsUsed]).toEqual([jobs, slots]);
  expect(existsSync(join(above, 'd'))).toBe(false);
  await watched.close();
});
