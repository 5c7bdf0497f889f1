/** What `key usage` knows of backups while they are made, and of those of which nothing came. */
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { FsStore } from '../../src/store/fs-store.js';
import { ended, holdCreation, scene, verdict } from '../support/backed-up.js';
import { ioError } from '../support/hooked-store.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';

describe('a key that a backup needs', () => {
  beforeEach(expectNoLeakedSlots);

  it('is needed while the backup is being made, and by what it is in the end', async () => {
    const { watched, made, backUp, path } = await scene();
    const { open, reached } = holdCreation(/^map$/);
    const job = await backUp();
    await reached;
    await watched.keys.set('v', 'other:b', STARTUP);
    const doubts = ['it is being made at this moment'];
    expect(await verdict(watched, 'scripted:a')).toMatchObject({ safeToDelete: false, doubts });
    open();
    expect((await ended(watched, job)).state).toBe('done');
    expect(await verdict(watched, 'scripted:a')).toMatchObject({ safeToDelete: true, doubts: [] });
    expect(await verdict(watched, 'other:b')).toMatchObject({ safeToDelete: false, doubts: ['there'] });
    // Another one at the path of one that is gone leaves no doubt about that.
    await watched.keys.set('v', 'scripted:a', STARTUP);
    rmSync(path, { recursive: true });
    await made();
    expect(await verdict(watched, 'other:b')).toMatchObject({ safeToDelete: true, doubts: ['gone'] });
    await watched.close();
  });

  it('is needed by a backup whose last step failed, and not by one that was cancelled', async () => {
    const { watched, backUp, path } = await scene();
    const sync = FsStore.prototype.syncDirectory;
    const spy = vi.spyOn(FsStore.prototype, 'syncDirectory');
    onTestFinished(() => spy.mockRestore());
    spy.mockImplementation(async function (this: FsStore) {
      if (this.path === path && existsSync(join(path, 'manifest'))) throw ioError('fsync');
      return sync.call(this);
    });
    const failed = await ended(watched, await backUp());
    expect(failed).toMatchObject({ state: 'failed', error: { code: 'FAILED' } });
    spy.mockRestore();
    await watched.volumes.stop('v', STARTUP);
    await watched.volumes.start('v', STARTUP);
    await watched.keys.set('v', 'other:b', STARTUP);
    expect(await verdict(watched, 'scripted:a')).toMatchObject({ safeToDelete: false, doubts: ['there'] });
    rmSync(path, { recursive: true });

    const { open, reached } = holdCreation(/^map$/);
    const job = await backUp();
    await reached;
    const cancelled = watched.jobs.cancel(job.id);
    open();
    expect((await cancelled).state).toBe('cancelled');
    expect(readdirSync(path)).toEqual([]);
    expect(await verdict(watched, 'other:b')).toMatchObject({ doubts: [] });
    await watched.close();
  });
});

it('every directory that is made for a backup has its name durably before anything is in it', async () => {
  const { watched, above } = await scene();
  const synced: string[] = [];
  const sync = FsStore.prototype.syncDirectory;
  const spy = vi.spyOn(FsStore.prototype, 'syncDirectory');
  onTestFinished(() => spy.mockRestore());
  spy.mockImplementation(async function (this: FsStore) {
    if (this.path.startsWith(above)) synced.push(this.path);
    await sync.call(this);
  });
  const path = join(above, 'one/two/b');
  await ended(watched, await watched.backups.create('v', { path, salvage: false }, STARTUP));
  const made = [join(above, 'one/two'), join(above, 'one'), above];
  expect(synced.slice(0, made.length)).toEqual(made);
  await watched.close();
});
