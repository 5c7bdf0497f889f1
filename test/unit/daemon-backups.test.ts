/** Backups, restores and clones as operations of a daemon, over volumes of this process. */
import { existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { JobInfo } from '../../src/admin/schemas.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { Arena } from '../../src/native/arena.js';
import { expectNoLeakedSlots, memoryDirectory, temporaryDirectory } from '../support/key-fixtures.js';
import { until } from '../support/until.js';
import { BLOCK, patternBlock } from '../support/volume-harness.js';
import { createVolume, type Watched, WatchedDirectory } from '../support/watched-volumes.js';

async function write(
  watched: Watched,
  name: string,
  lba: number,
  blocks: number,
  version: number,
): Promise<void> {
  const io = new Arena(1 << 20);
  for (let i = 0; i < blocks; i++) io.bytes.set(patternBlock(lba + i, version), i * BLOCK);
  const { device } = watched.volumes.get(name);
  await device!.write(io, 0, lba * BLOCK, blocks * BLOCK);
  await device!.flush();
  io.free();
}

async function versionAt(watched: Watched, name: string, lba: number): Promise<number> {
  const io = new Arena(1 << 16);
  await watched.volumes.get(name).device!.read(io, 0, lba * BLOCK, BLOCK);
  const version = io.view.getUint32(4, true);
  expect(version === 0 || Buffer.compare(io.bytes.slice(0, BLOCK), patternBlock(lba, version)) === 0).toBe(
    true,
  );
  io.free();
  return version;
}

async function done(watched: Watched, started: JobInfo): Promise<JobInfo> {
  await until('the job has ended', () => watched.jobs.get(started.id).state !== 'running');
  const job = watched.jobs.get(started.id);
  expect(job).toMatchObject({ state: 'done', error: null });
  return job;
}

describe('the daemon', () => {
  beforeEach(expectNoLeakedSlots);

  it('tells of a key which volumes share its DEKs, and which backups need it', async () => {
    const watched = await new WatchedDirectory().start({});
    const at = join(temporaryDirectory(), 'b');
    await createVolume(watched.volumes, 'v', 'scripted:a');
    await write(watched, 'v', 0, 20, 1);
    const request = { path: at, salvage: false };
    await done(watched, await watched.backups.create('v', request, STARTUP));
    await done(watched, await watched.restores.restore('w', request, STARTUP));
    expect(await versionAt(watched, 'w', 7)).toBe(1);
    const [usage] = await watched.keys.usage(undefined);
    const brief = usage.volumes.map(({ volume, deks }) => [
      volume,
      deks.map(({ id, sharedWith, origin }) => [id, sharedWith, origin]),
    ]);
    const [v, w] = [usage.volumes[0].deks[0].origin, usage.volumes[1].deks[1].origin];
    expect(brief).toEqual([
      ['v', [[1, ['w'], v]]],
      [
        'w',
        [
          [1, ['v'], v],
          [2, [], w],
        ],
      ],
    ]);
    expect(v).not.toBe(w);
    expect(usage.backups).toMatchObject([{ path: at, volume: 'v', deks: [1], present: true }]);

    for (const name of ['v', 'w']) await watched.volumes.delete(name, STARTUP);
    const ofBackup = async () => {
      const [{ volumes, safeToDelete, backups, caveats }] = await watched.keys.usage('scripted:a');
      expect(volumes).toEqual([]);
      return { safeToDelete, present: backups.map(({ present }) => present), caveats };
    };
    expect(await ofBackup()).toMatchObject({ safeToDelete: false, present: [true] });
    rmSync(at, { recursive: true });
    const gone = await ofBackup();
    expect(gone).toMatchObject({ safeToDelete: true, present: [false] });
    expect(gone.caveats[0]).toContain(at);
    await watched.close();
  });

  it('restores under the very key of the backup, though its alias leads elsewhere by now', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start({});
    const request = { path: join(temporaryDirectory(), 'b'), salvage: false };
    directory.one.resolve = (uri) => (uri === 'scripted:alias' ? 'scripted:first' : uri);
    await createVolume(watched.volumes, 'v', 'scripted:alias');
    await write(watched, 'v', 0, 20, 1);
    await done(watched, await watched.backups.create('v', request, STARTUP));
    await done(watched, await watched.restores.restore('w', request, STARTUP));
    directory.one.resolve = (uri) => (uri === 'scripted:alias' ? 'scripted:second' : uri);
    await done(watched, await watched.restores.restore('x', request, STARTUP));
    const keysOf = (name: string) =>
      watched.volumes.get(name).superblock!.deks.map(({ keyUri, resolvedKeyId }) => [keyUri, resolvedKeyId]);
    expect(keysOf('w')).toEqual(Array(2).fill(['scripted:alias', 'scripted:first']));
    expect(keysOf('x')).toEqual(Array(2).fill(['scripted:first', 'scripted:first']));
    expect(await versionAt(watched, 'x', 7)).toBe(1);
    await watched.close();
  });

  it('makes one backup at a time in a directory, whoever asks', async () => {
    const watched = await new WatchedDirectory().start({});
    const request = { path: join(temporaryDirectory(), 'b'), salvage: false };
    for (const name of ['v', 'w']) {
      await createVolume(watched.volumes, name, 'scripted:a');
      await write(watched, name, 0, 100, 1);
    }
    const jobs = await Promise.all(['v', 'w'].map((name) => watched.backups.create(name, request, STARTUP)));
    const states = async () =>
      jobs.map(({ id }) => watched.jobs.get(id)).map(({ state, error }) => [state, error?.code]);
    await until('both have ended', async () => (await states()).every(([state]) => state !== 'running'));
    expect((await states()).sort()).toEqual([
      ['done', undefined],
      ['failed', 'CONFLICT'],
    ]);
    const [usage] = await watched.keys.usage(undefined);
    expect(usage.backups).toMatchObject([{ path: request.path, present: true }]);
    await watched.close();
  });

  it('ends a backup with its volume, and leaves no half of it', async () => {
    const watched = await new WatchedDirectory().start({});
    await createVolume(watched.volumes, 'v', 'scripted:a');
    for (let lba = 0; lba < 2000; lba += 200) await write(watched, 'v', lba, 200, 1);
    for (const [i, end] of ['stop', 'delete'].entries()) {
      if (i > 0) await watched.volumes.start('v', STARTUP);
      const path = join(temporaryDirectory(), 'b');
      const { id } = await watched.backups.create('v', { path, salvage: false }, STARTUP);
      await new Promise((resolve) => setTimeout(resolve, i));
      await watched.volumes[end as 'stop' | 'delete']('v', STARTUP);
      await until('the job has ended', () => watched.jobs.get(id).state !== 'running');
      const isWhole = watched.jobs.get(id).state === 'done';
      expect(readdirSync(path).includes('manifest')).toBe(isWhole);
      if (!isWhole) expect(readdirSync(path)).toEqual([]);
    }
    await watched.close();
  });

  it('clones by links, and neither volume ever touches what both have', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start({});
    await createVolume(watched.volumes, 'v', 'scripted:a');
    await write(watched, 'v', 0, 200, 1);
    await watched.volumes.stop('v', STARTUP);
    await watched.volumes.start('v', STARTUP);
    await write(watched, 'v', 100, 50, 2);
    await watched.snapshots.create('v', 's', STARTUP);
    await done(watched, await watched.restores.clone('v', 's', 'c', STARTUP));
    const links = (name: string): number[] => {
      const path = join(directory.path, 'volumes', name);
      const files = readdirSync(path).filter((file) => file.startsWith('seg-'));
      return files.map((file) => statSync(join(path, file)).nlink);
    };
    // The sealed segment is linked; the open one is copied.
    expect(links('c').sort()).toEqual([1, 2]);
    await write(watched, 'c', 0, 100, 3);
    await watched.snapshots.delete('v', 's', STARTUP);
    const { job } = await watched.rotations.rotate(watched.volumes, 'v', true, STARTUP);
    await done(watched, job!);
    expect(links('c').sort().at(-1)).toBe(1);
    await write(watched, 'v', 0, 200, 4);
    await watched.volumes.delete('v', STARTUP);
    const versions = [50, 99, 100, 149, 150].map((lba) => versionAt(watched, 'c', lba));
    expect(await Promise.all(versions)).toEqual([3, 3, 2, 2, 1]);
    await watched.close();
  });

  it('restores nothing that the configuration would not let be served, and leaves nothing of what fails', async () => {
    const pins = new Map([
      ['pinned', { keyUris: ['other:b'] }],
      ['known', { uuid: '53b87fbc-f65a-4d5f-8e45-896aac8f877e', suite: 2 as const }],
    ]);
    const directory = new WatchedDirectory();
    const watched = await directory.start({ pins });
    const path = join(temporaryDirectory(), 'b');
    await createVolume(watched.volumes, 'v', 'scripted:a');
    await write(watched, 'v', 0, 100, 1);
    await done(watched, await watched.backups.create('v', { path, salvage: false }, STARTUP));
    const restore = (name: string) => watched.restores.restore(name, { path, salvage: false }, STARTUP);
    for (const name of ['pinned', 'known', 'v'])
      await expect(restore(name)).rejects.toMatchObject({ code: 'CONFLICT' });
    directory.one.answer = 'refused';
    await expect(restore('w')).rejects.toMatchObject({
      code: 'KEY_UNAVAILABLE',
      message: expect.stringContaining('scripted:a'),
    });
    directory.one.answer = 'yes';

    const job = await restore('w');
    await watched.jobs.cancel(job.id).catch(() => undefined); // It may be over.
    expect(readdirSync(join(directory.path, 'volumes')).filter((name) => name.startsWith('.'))).toEqual([]);
    if (watched.jobs.get(job.id).state === 'cancelled') expect(watched.volumes.find('w')).toBeUndefined();
    await watched.close();
  });

  it('waits with backups and restores while a file of their file system hangs; others go on, and volumes', async () => {
    const watched = await new WatchedDirectory().start({});
    const at = join(temporaryDirectory(), 'b');
    await createVolume(watched.volumes, 'v', 'scripted:a');
    await write(watched, 'v', 0, 20, 1);
    let answer = (): void => undefined;
    const hung = new Promise<void>((resolve) => {
      answer = resolve;
    });
    void watched.backupFiles.run(at, () => hung);
    const request = { path: at, salvage: false };
    let begun = 0;
    const creating = watched.backups.create('v', request, STARTUP).finally(() => {
      begun += 1;
    });
    const restoring = watched.restores.restore('w', request, STARTUP).finally(() => {
      begun += 1;
    });
    restoring.catch(() => undefined);
    await write(watched, 'v', 0, 20, 2);
    expect(await versionAt(watched, 'v', 7)).toBe(2);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect([begun, existsSync(at)]).toEqual([0, false]);
    // Another file system: it is asked while the one above does not answer.
    const elsewhere = join(memoryDirectory(), 'b');
    expect(statSync(dirname(elsewhere)).dev).not.toBe(statSync(dirname(at)).dev);
    await createVolume(watched.volumes, 'x', 'scripted:a');
    await write(watched, 'x', 0, 20, 1);
    const other = { path: elsewhere, salvage: false };
    await done(watched, await watched.backups.create('x', other, STARTUP));
    await done(watched, await watched.restores.restore('y', other, STARTUP));
    expect(begun).toBe(0);
    answer();
    await done(watched, await creating);
    await expect(restoring).rejects.toThrow();
    await watched.close();
  });
});
