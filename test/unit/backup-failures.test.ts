import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { openChain } from '../../src/backup/backup-directory.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { FsStore } from '../../src/store/fs-store.js';
import { BackupSubject } from '../support/backup-subject.js';
import { storeAt, verify } from '../support/backups.js';
import { HookedStore, ioError } from '../support/hooked-store.js';

const cipher = new CipherPool({ threads: 1 });
afterAll(() => cipher.destroy());

async function subjectAndTarget() {
  const source = await BackupSubject.create(2, cipher, 1);
  await source.change(20);
  const path = source.directory('b');
  const to = new HookedStore(await FsStore.open(path, { create: true }));
  const isNamed = () => existsSync(join(path, 'manifest'));
  return { source, path, to, isNamed };
}

/** Fails the first time only: what the backup does about it succeeds. */
function once(isTime: () => boolean, syscall: string): () => Promise<void> {
  let failed = false;
  return async () => {
    if (failed || !isTime()) return;
    failed = true;
    throw ioError(syscall);
  };
}

it.each(['the sync of the directory', 'the removal of `incomplete`', 'the sync after that'])(
  'where %s fails once the manifest has its name, the backup stays whole',
  async (what) => {
    const { source, path, to, isNamed } = await subjectAndTarget();
    const hasMarker = () => existsSync(join(path, 'incomplete'));
    if (what === 'the sync of the directory') to.onSyncDirectory = once(isNamed, 'fsync');
    else if (what === 'the sync after that')
      to.onSyncDirectory = once(() => isNamed() && !hasMarker(), 'fsync');
    else to.onRemove = once(isNamed, 'unlink');

    const failed = { code: 'FAILED', message: expect.stringMatching(/power failure.*EIO: injected/) };
    await expect(source.backUp('b', { to })).rejects.toMatchObject(failed);
    await openChain(path, storeAt);
    expect((await verify(source, path)).problems).toEqual([]);
    const { path: restored } = await source.restore('b', 'w');
    const copy = await source.restored(restored, source.versions);
    await copy.expectContent();
    await copy.stop();
    await expect(source.backUp('b')).rejects.toMatchObject({ code: 'CONFLICT' });
    await source.stop();
  },
);

it('a rename that fails though it was done leaves the whole backup, one that was not done an empty directory', async () => {
  const { source, path, to } = await subjectAndTarget();
  to.onRename = async () => {
    throw ioError('rename');
  };
  await expect(source.backUp('b', { to })).rejects.toMatchObject({ code: 'EIO' });
  expect(readdirSync(path)).toEqual([]);

  const plain = await FsStore.open(path);
  to.onRename = async (from, name) => {
    await plain.rename(from, name);
    throw ioError('rename');
  };
  await expect(source.backUp('b', { to })).rejects.toMatchObject({ code: 'EIO' });
  expect((await verify(source, path)).problems).toEqual([]);
  await source.stop();
});
