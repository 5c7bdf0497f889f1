/** Keys that a restore, or the base of a backup, holds are given up when a volume's would be. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { nullLogger } from '../../src/base/log.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { JobKeys } from '../../src/keys/job-keys.js';
import type { KeyProviders } from '../../src/kms/registry.js';
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

describe('a job that is aborted while it hangs', () => {
  beforeEach(expectNoLeakedSlots);

  it.each(['cancelled', 'ended with the daemon'])('has no keys left once a restore is %s', async (how) => {
    const { directory, watched, job, open, before } = await heldRestore();
    const ending = how === 'cancelled' ? watched.jobs.cancel(job.id) : Promise.resolve(watched.jobs.close());
    expect(slotsUsed()).toBe(before);
    expect(watched.jobs.get(job.id).state).toBe('running');
    expect(watched.watchdog.watches('restore w')).toBe(false);
    open();
    await ending;
    expect(await ended(watched, job)).toMatchObject({ state: 'cancelled', error: null });
    expect(watched.volumes.find('w')).toBeUndefined();
    expect(readdirSync(join(directory.path, 'volumes'))).toEqual(['v']);
    await watched.close();
  });

  it.each(['stop', 'delete'] as const)(
    'has no keys left after the %s of the volume that it backs up',
    async (how) => {
      const { watched, path, above, made } = await scene();
      await made();
      const { open, reached } = holdCreation(/^map$/);
      const request = { path: join(above, 'c'), base: path, salvage: false };
      const job = await watched.backups.create('v', request, STARTUP);
      await reached;
      await watched.volumes[how]('v', STARTUP);
      expect(watched.jobs.get(job.id).state).toBe('running');
      const hanging = slotsUsed();
      open();
      expect(await ended(watched, job)).toMatchObject({ state: 'cancelled', error: null });
      expect(hanging).toBe(slotsUsed());
      expect(readdirSync(request.path)).toEqual([]);
      await watched.close();
    },
  );

  it('has no key left of a clone', async () => {
    const { watched } = await scene();
    await watched.snapshots.create('v', 's', STARTUP);
    const { open, reached } = holdCreation(/^seg-/);
    const job = await watched.restores.clone('v', 's', 'w', STARTUP);
    await reached;
    await watched.volumes.stop('v', STARTUP);
    expect(watched.jobs.get(job.id).state).toBe('running');
    const hanging = slotsUsed();
    open();
    expect(await ended(watched, job)).toMatchObject({ state: 'cancelled', error: null });
    expect(hanging).toBe(slotsUsed());
    expect(watched.volumes.find('w')).toBeUndefined();
    await watched.close();
  });

  it('is not begun any more when the daemon ends, and keeps no keys of what it would have read', async () => {
    const { watched, path, above, made } = await scene();
    await made();
    const before = slotsUsed();
    watched.jobs.close();
    const code = { code: 'ESHUTDOWN' };
    await expect(watched.restores.restore('w', { path, salvage: false }, STARTUP)).rejects.toMatchObject(
      code,
    );
    const request = { path: join(above, 'c'), base: path, salvage: false };
    await expect(watched.backups.create('v', request, STARTUP)).rejects.toMatchObject(code);
    expect(slotsUsed()).toBe(before);
    await watched.close();
  });

  it('fails with ESHUTDOWN, and a key that comes late is wiped at once', async () => {
    const { watched } = await scene();
    const { watchdog } = watched;
    const options = { watchdog, providers: {} as KeyProviders, clock: systemClock, log: nullLogger };
    const abort = new AbortController();
    const wiped: string[] = [];
    const held = {
      deks: [],
      uuid: new Uint8Array(16),
      handles: new Map(),
      release: () => wiped.push('held'),
    };
    const control = { signal: abort.signal, onProgress: () => undefined };
    const job = new JobKeys(options).during('restore w', control, held, async ({ alsoWipe, signal }) => {
      abort.abort();
      expect([signal.aborted, wiped]).toEqual([true, ['held']]);
      alsoWipe(() => wiped.push('late'));
      expect(wiped).toEqual(['held', 'late']);
      throw new Error('the key is gone');
    });
    await expect(job).rejects.toMatchObject({ code: 'ESHUTDOWN' });
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
