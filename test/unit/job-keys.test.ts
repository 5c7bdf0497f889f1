/** Keys that a restore, or the base of a backup, holds are given up when a volume's would be. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { addon } from '../../src/native/addon.js';
import { ended, holdCreation, scene } from '../support/backed-up.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';
import type { WatchedOptions } from '../support/watched-volumes.js';

const slotsUsed = (): number => addon.secureMemory().slotsUsed;

/** A restore that waits, all keys at hand, before it makes the first segment. */
async function heldRestore(options: WatchedOptions = {}) {
  const all = await scene(options);
  const { watched, path, made } = all;
  await made();
  const before = slotsUsed();
  const { open, reached } = holdCreation(/^seg-/);
  const job = await watched.restores.restore('w', { path, salvage: false }, STARTUP);
  await reached;
  expect(slotsUsed()).toBeGreaterThan(before + 1);
  expect(watched.watchdog.watches('restore w')).toBe(true);
  return { ...all, job, open, before };
}

describe('a restore whose key is taken away', () => {
  beforeEach(expectNoLeakedSlots);

  it('fails once the refusal is confirmed, its keys wiped at once, and leaves nothing', async () => {
    const { directory, watched, job, open, before } = await heldRestore();
    directory.one.answer = 'refused';
    await watched.watchdog.check('restore w');
    expect(slotsUsed()).toBeGreaterThan(before + 1);
    await watched.watchdog.check('restore w');
    // Though the job hangs yet.
    expect(watched.jobs.get(job.id).state).toBe('running');
    expect(slotsUsed()).toBe(before);
    directory.one.answer = 'yes';
    open();
    expect(await ended(watched, job)).toMatchObject({
      state: 'failed',
      error: { code: 'KEY_UNAVAILABLE', message: expect.stringContaining('the service is refused') },
    });
    expect(watched.watchdog.watches('restore w')).toBe(false);
    expect(watched.volumes.find('w')).toBeUndefined();
    expect(readdirSync(join(directory.path, 'volumes'))).toEqual(['v']);
    await watched.close();
  });

  it('fails when the service is out of reach for the grace period', async () => {
    const { directory, watched, job, open, before } = await heldRestore({ policy: { graceMs: 0 } });
    directory.one.answer = 'unreachable';
    await watched.watchdog.check('restore w');
    expect(slotsUsed()).toBe(before);
    directory.one.answer = 'yes';
    open();
    expect(await ended(watched, job)).toMatchObject({ error: { code: 'KEY_UNAVAILABLE' } });
    await watched.close();
  });

  it('goes on within the grace period, and after a refusal that is not confirmed', async () => {
    const { directory, watched, job, open } = await heldRestore();
    for (const answer of ['unreachable', 'refused', 'yes', 'refused', 'yes'] as const) {
      directory.one.answer = answer;
      await watched.watchdog.check('restore w');
    }
    open();
    expect(await ended(watched, job)).toMatchObject({ state: 'done', error: null });
    expect(watched.volumes.get('w').state).toBe('serving');
    await watched.close();
  });
});

describe('a backup whose base is under a key that is taken away', () => {
  it('fails, the keys of the base wiped, and its volume serves on under another key', async () => {
    expectNoLeakedSlots();
    const { directory, watched, path, above, made } = await scene();
    await made();
    await watched.keys.set('v', 'other:b', STARTUP);
    const before = slotsUsed();
    const { open, reached } = holdCreation(/^map$/);
    const request = { path: join(above, 'c'), base: path, salvage: false };
    const job = await watched.backups.create('v', request, STARTUP);
    await reached;
    expect(slotsUsed()).toBeGreaterThan(before);
    directory.one.answer = 'refused';
    for (let i = 0; i < 2; i++) await watched.watchdog.check('backup v');
    expect(slotsUsed()).toBe(before);
    open();
    expect(await ended(watched, job)).toMatchObject({ error: { code: 'KEY_UNAVAILABLE' } });
    expect(readdirSync(request.path)).toEqual([]);
    expect(watched.volumes.get('v').state).toBe('serving');
    await watched.close();
  });
});
