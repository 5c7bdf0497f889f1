/** Snapshots as the daemon runs them: what is recorded, what a rollback asks of others, and what is left where it fails. */
import { readdirSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { Caller } from '../../src/admin/backend.js';
import { VolumeExports } from '../../src/daemon/exports.js';
import type { ManagedVolume } from '../../src/daemon/managed-volume.js';
import { Arena } from '../../src/native/arena.js';
import { FsStore } from '../../src/store/fs-store.js';
import { ioError } from '../support/hooked-store.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';
import { rejection } from '../support/rotating-volume.js';
import { BLOCK } from '../support/volume-harness.js';
import { createVolume, fillVolume, type Watched, WatchedDirectory } from '../support/watched-volumes.js';

const CLI: Caller = { kind: 'cli', peer: 'unix' };
const KEY = 'scripted:a';
const BLOCKS = 200;

const write = (volume: ManagedVolume, version: number): Promise<void> => fillVolume(volume, BLOCKS, version);

async function versionAt(volume: ManagedVolume, lba: number): Promise<number> {
  const io = new Arena(BLOCK);
  await volume.device!.read(io, 0, lba * BLOCK, BLOCK);
  const [, version] = new Uint32Array(io.bytes.slice().buffer);
  io.free();
  return version;
}

async function started(): Promise<Watched & { directory: WatchedDirectory; volume: ManagedVolume }> {
  const directory = new WatchedDirectory();
  const watched = await directory.start();
  const volume = await createVolume(watched.volumes, 'v', KEY);
  await write(volume, 1);
  return { ...watched, directory, volume };
}

describe('snapshots of the daemon', () => {
  beforeEach(expectNoLeakedSlots);

  it('are recorded in the audit log when they are made, rolled back to and deleted, and not when they are refused', async () => {
    const { snapshots, volume, audit, close } = await started();
    const before = (await audit()).length;
    await snapshots.create('v', 'a', CLI);
    expect(await rejection(snapshots.create('v', 'a', CLI))).toMatchObject({ code: 'CONFLICT' });
    await write(volume, 2);
    await snapshots.rollBack('v', 'a', CLI);
    expect(await versionAt(volume, 7)).toBe(1);
    await snapshots.delete('v', 'a', CLI);
    expect(await rejection(snapshots.delete('v', 'a', CLI))).toMatchObject({ code: 'NOT_FOUND' });
    expect(await rejection(snapshots.rollBack('v', 'a', CLI))).toMatchObject({ code: 'NOT_FOUND' });
    const lines = (await audit()).slice(before);
    expect(lines.map(({ event, volume: name, snapshot, by }) => [event, name, snapshot, by])).toEqual([
      ['snapshot-create', 'v', 'a', CLI],
      ['snapshot-rollback', 'v', 'a', CLI],
      ['snapshot-delete', 'v', 'a', CLI],
    ]);
    await close();
  });

  it('are rolled back to under the keys in memory: no key service is asked', async () => {
    const { snapshots, volume, directory, close } = await started();
    await snapshots.create('v', 'a', CLI);
    await write(volume, 2);
    const { questions } = directory.one;
    directory.one.answer = 'unreachable';
    await snapshots.rollBack('v', 'a', CLI);
    expect([volume.state, await versionAt(volume, 0)]).toEqual(['serving', 1]);
    expect(directory.one.questions).toBe(questions);
    await close();
  });

  it('are not rolled back to while a job runs', async () => {
    const { snapshots, volume, jobs, close } = await started();
    await snapshots.create('v', 'a', CLI);
    const job = jobs.start('verify', 'v', ({ signal }) => {
      return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    });
    expect(await rejection(snapshots.rollBack('v', 'a', CLI))).toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining(`job ${job.id}`),
    });
    await jobs.cancel(job.id);
    await snapshots.rollBack('v', 'a', CLI);
    expect(volume.state).toBe('serving');
    await close();
  });

  it('change the size of the volume with its content, unless the rollback is refused', async () => {
    const { snapshots, volume, volumes, close } = await started();
    const sizeBytes = volume.superblock!.sizeBytes;
    await snapshots.create('v', 'small', CLI);
    await volumes.resize('v', 2 * sizeBytes, false, CLI);
    await snapshots.create('v', 'large', CLI);
    await snapshots.rollBack('v', 'small', CLI);
    expect([volume.superblock!.sizeBytes, volume.device!.sizeBytes]).toEqual([sizeBytes, sizeBytes]);
    const detach = volume.device!.attach(() => undefined);
    expect(await rejection(snapshots.rollBack('v', 'large', CLI))).toMatchObject({ code: 'CONFLICT' });
    expect([volume.superblock!.sizeBytes, volume.device!.sizeBytes]).toEqual([sizeBytes, sizeBytes]);
    detach();
    await snapshots.rollBack('v', 'large', CLI);
    expect([volume.superblock!.sizeBytes, volume.device!.sizeBytes]).toEqual([2 * sizeBytes, 2 * sizeBytes]);
    await close();
  });

  it.each([
    { root: 'the last one before it', nth: 1, grows: 1 },
    { root: 'the one that rolls back', nth: 2, grows: 2 },
  ])(
    'give size and content of one state where the second copy of $root can not be written',
    async ({ nth, grows }) => {
      const { snapshots, volume, volumes, close } = await started();
      const sizeBytes = volume.superblock!.sizeBytes;
      await snapshots.create('v', 'small', CLI);
      await volumes.resize('v', 2 * sizeBytes, false, CLI);
      await write(volume, 2);
      await snapshots.create('v', 'large', CLI);
      await snapshots.rollBack('v', 'small', CLI);
      const replace = FsStore.prototype.replaceSmall;
      const spy = vi.spyOn(FsStore.prototype, 'replaceSmall');
      onTestFinished(() => spy.mockRestore());
      const device = volume.device!;
      let written = 0;
      spy.mockImplementation(async function (this: FsStore, name: string, bytes: Uint8Array) {
        if (name === 'checkpoint.bak' && device.state === 'stopped' && ++written === nth)
          throw ioError('write');
        return replace.call(this, name, bytes);
      });
      await rejection(snapshots.rollBack('v', 'large', CLI));
      spy.mockRestore();
      expect(written).toBeGreaterThanOrEqual(nth);
      expect(volume.state).toBe('serving');
      const found = [volume.superblock!.sizeBytes, volume.device!.sizeBytes, await versionAt(volume, 7)];
      expect(found).toEqual([grows * sizeBytes, grows * sizeBytes, grows]);
      await close();
    },
  );

  it('leave a volume that says why, and no key in memory, where it does not open after a rollback', async () => {
    const { snapshots, volume, directory, close } = await started();
    await snapshots.create('v', 'a', CLI);
    await write(volume, 2);
    const path = join(directory.path, 'volumes', 'v');
    const device = volume.device!;
    const rollBack = device.rollBack.bind(device);
    device.rollBack = async (...args) => {
      await rollBack(...args);
      for (const name of readdirSync(path))
        if (name.startsWith('checkpoint')) truncateSync(join(path, name), 50);
    };
    expect(await rejection(snapshots.rollBack('v', 'a', CLI))).toMatchObject({ code: 'INTEGRITY' });
    expect(volume.state).toBe('failed');
    expect(volume.reason).toMatch(/checkpoint/);
    expect(volume.device).toBeUndefined();
    await close();
  });

  it('are found by NBD clients under NAME@SNAP only, while the volume is open', async () => {
    const { snapshots, volumes, volume, close } = await started();
    await snapshots.create('v', 'a', CLI);
    const exports = new VolumeExports(volumes);
    expect(Array.from(exports.list(), ({ name }) => name)).toEqual(['v', 'v@a']);
    expect(exports.lookup('v@a')).toMatchObject({ name: 'v@a', readOnly: true });
    for (const name of ['v@b', 'v@', '@a', 'v@a@a', 'w@a']) expect(exports.lookup(name)).toBeUndefined();
    const closed: string[] = [];
    volume.device!.snapshots.device('a')!.attach((reason) => closed.push(reason));
    await volumes.closeForKey('v', volume.epoch, 'the key was taken away');
    expect(closed).toHaveLength(1);
    expect(exports.lookup('v@a')).toMatchObject({ code: 'ESHUTDOWN' });
    expect([...exports.list()]).toEqual([]);
    await close();
  });
});
