/** A restore asks first, and a clone, for the room that a new volume must have: its blocks, and what it keeps for a full disk. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { SLOT_BYTES } from '../../src/base/limits.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { ended, scene } from '../support/backed-up.js';

const free = vi.hoisted(() => ({ bytes: 0 }));
vi.mock('node:fs/promises', async (original) => ({
  ...(await original<typeof import('node:fs/promises')>()),
  statfs: async () => ({ bavail: free.bytes, bsize: 1 }),
}));

it('a restore is refused where there is room for the blocks, and none for the reserve', async () => {
  const { directory, watched, path, made } = await scene();
  await made();
  const volume = join(directory.path, 'volumes', 'v');
  const reserve = readdirSync(volume)
    .filter((name) => /^reserve-(map-)?[0-9]+$/.test(name))
    .reduce((sum, name) => sum + statSync(join(volume, name)).size, 0);
  expect(reserve).toBeGreaterThan(0);
  const needed = 20 * SLOT_BYTES + reserve;
  const restore = () => watched.restores.restore('w', { path, salvage: false }, STARTUP);
  for (const bytes of [20 * SLOT_BYTES, needed - 1]) {
    free.bytes = bytes;
    await expect(restore()).rejects.toMatchObject({
      code: 'ENOSPC',
      message: expect.stringContaining('in reserve'),
    });
  }
  expect(watched.volumes.find('w')).toBeUndefined();
  free.bytes = needed;
  expect(await ended(watched, await restore())).toMatchObject({ state: 'done', error: null });
  await watched.close();
});

it('a clone is refused where there is no room for its reserve and what it can not share', async () => {
  const { directory, watched } = await scene();
  await watched.snapshots.create('v', 's', STARTUP);
  const volume = join(directory.path, 'volumes', 'v');
  const reserve = readdirSync(volume)
    .filter((name) => /^reserve-(map-)?[0-9]+$/.test(name))
    .reduce((sum, name) => sum + statSync(join(volume, name)).size, 0);
  const clone = () => watched.restores.clone('v', 's', 'w', STARTUP);
  const jobs = watched.jobs.list().length;
  free.bytes = reserve - 1;
  await expect(clone()).rejects.toMatchObject({
    code: 'ENOSPC',
    message: expect.stringContaining('in reserve'),
  });
  expect(watched.jobs.list()).toHaveLength(jobs);
  expect(watched.volumes.find('w')).toBeUndefined();
  free.bytes = reserve + 20 * SLOT_BYTES;
  expect(await ended(watched, await clone())).toMatchObject({ state: 'done', error: null });
  await watched.close();
});
