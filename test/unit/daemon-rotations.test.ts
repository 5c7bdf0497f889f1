import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ManagedVolume } from '../../src/daemon/managed-volume.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { keyView } from '../../src/daemon/volume-views.js';
import { Arena } from '../../src/native/arena.js';
import { BLOCK, patternBlock } from '../support/volume-harness.js';
import { createVolume, fillVolume, type Watched, WatchedDirectory } from '../support/watched-volumes.js';

const BLOCKS = 4096;
const KEY = 'scripted:a';

const fill = (volume: ManagedVolume, version = 1): Promise<void> => fillVolume(volume, BLOCKS, version);

async function expectFilled(volume: ManagedVolume, version = 1): Promise<void> {
  const io = new Arena(BLOCK);
  for (let lba = 0; lba < BLOCKS; lba++) {
    await volume.device!.read(io, 0, lba * BLOCK, BLOCK);
    if (Buffer.compare(io.bytes, patternBlock(lba, version)) !== 0) throw new Error(`block ${lba} is wrong`);
  }
  io.free();
}

async function filled(directory: WatchedDirectory): Promise<Watched & { volume: ManagedVolume }> {
  const watched = await directory.start();
  const volume = await createVolume(watched.volumes, 'v', KEY);
  await fill(volume);
  return { ...watched, volume };
}

const rotate = ({ rotations, volumes }: Watched, reencrypt = true) =>
  rotations.rotate(volumes, 'v', reencrypt, STARTUP);
const view = ({ rotations }: Pick<Watched, 'rotations'>, volume: ManagedVolume) =>
  keyView(volume, undefined, rotations.isAtWork('v'));
const ids = (volume: ManagedVolume) => volume.superblock!.deks.map(({ id, state }) => `${id} ${state}`);

describe('a rotation', () => {
  it('seals new data under a new DEK, leaves the old readable, and shows where what lies', async () => {
    const directory = new WatchedDirectory();
    const watched = await filled(directory);
    const { volume } = watched;
    const { job } = await rotate(watched, false);
    expect(job).toBeUndefined();
    expect(ids(volume)).toEqual(['1 retired', '2 active']);
    const before = volume.device!.segmentsByDek().get(1)!.segments;
    await expectFilled(volume);
    await fill(volume, 2);
    expect(volume.device!.segmentsByDek().get(1)?.segments ?? 0).toBeLessThanOrEqual(before);
    await expectFilled(volume, 2);
    expect(view(watched, volume)).toMatchObject({ rotation: null });
    await watched.volumes.stop('v', STARTUP);
    await watched.volumes.start('v', STARTUP);
    await expectFilled(volume, 2);
    await watched.close();
  });

  it('with re-encryption destroys the old DEK when nothing is under it, with a line for each step', async () => {
    const directory = new WatchedDirectory();
    const watched = await filled(directory);
    const { volume, jobs } = watched;
    const old = volume.superblock!.deks[0].wrapped;
    const { job } = await rotate(watched);
    expect(view(watched, volume)).toMatchObject({ rotation: { phase: 'reencrypting' } });
    await jobs.ended('v', 'reencrypt');
    expect(jobs.get(job!.id)).toMatchObject({ state: 'done', doneBytes: BLOCKS * BLOCK });
    expect(ids(volume)).toEqual(['2 active']);
    expect([...volume.device!.segmentsByDek().keys()]).toEqual([2]);
    await expectFilled(volume);
    const path = join(directory.path, 'volumes', 'v');
    for (const name of readdirSync(path)) {
      expect([name, readFileSync(join(path, name)).includes(Buffer.from(old))]).toEqual([name, false]);
    }
    const events = (await watched.audit()).map(({ event, dekId }) => `${event} ${dekId ?? ''}`.trim());
    expect(events.slice(-3)).toEqual(['wrap 2', 'rotate 2', 'destroy 1']);
    await watched.close();
  });

  it('goes on where it was when the volume is opened again, after a stop and after a withdrawn key', async () => {
    const directory = new WatchedDirectory();
    const watched = await filled(directory);
    const { volume, volumes, jobs } = watched;
    await rotate(watched);
    await volumes.stop('v', STARTUP);
    expect(volume.superblock).toMatchObject({ rewriting: true });
    await jobs.ended('v', 'reencrypt');
    expect(view(watched, volume)).toMatchObject({ rotation: { phase: 'waiting' } });
    directory.one.answer = 'refused';
    await expect(volumes.start('v', STARTUP)).rejects.toMatchObject({ kind: 'refused' });
    directory.one.answer = 'yes';
    await volumes.start('v', STARTUP);
    await expect.poll(() => volume.superblock!.rewriting, { timeout: 30_000 }).toBe(false);
    await jobs.ended('v', 'reencrypt');
    expect(ids(volume)).toEqual(['2 active']);
    await expectFilled(volume);
    await watched.close();
  });

  it('that is cancelled stays as far as it came until it is asked for again', async () => {
    const directory = new WatchedDirectory();
    const watched = await filled(directory);
    const { volume, volumes, jobs, rotations } = watched;
    const { job } = await rotate(watched);
    const cancelled = await jobs.cancel(job!.id);
    expect(cancelled.state).toBe('cancelled');
    await rotations.cancelled(volumes, cancelled, STARTUP);
    expect(volume.superblock).toMatchObject({ rewriting: false });
    expect(ids(volume)).toEqual(['1 retired', '2 active']);
    await volumes.stop('v', STARTUP);
    await volumes.start('v', STARTUP);
    await new Promise((resolve) => setImmediate(resolve));
    expect(jobs.running('v', 'reencrypt')).toBeUndefined();
    await expectFilled(volume);
    await rotate(watched);
    await jobs.ended('v', 'reencrypt');
    expect(ids(volume)).toEqual(['3 active']);
    await expectFilled(volume);
    await watched.close();
  });

  it('is refused while another one rewrites, under a key that is refused, and on a volume without a key', async () => {
    const directory = new WatchedDirectory();
    const watched = await filled(directory);
    const { volume, volumes, jobs } = watched;
    const { job } = await rotate(watched);
    await expect(rotate(watched)).rejects.toMatchObject({ code: 'CONFLICT' });
    await jobs.ended('v', 'reencrypt');
    expect(jobs.get(job!.id).state).toBe('done');
    directory.one.answer = 'unreachable';
    await expect(rotate(watched)).rejects.toMatchObject({ code: 'KEY_UNAVAILABLE' });
    expect(ids(volume)).toEqual(['2 active']);
    directory.one.answer = 'yes';
    directory.one.resolve = () => 'scripted:elsewhere';
    await expect(rotate(watched)).rejects.toMatchObject({
      ...{ code: 'CONFLICT', message: expect.stringContaining('scripted:elsewhere') },
    });
    expect(ids(volume)).toEqual(['2 active']);
    expect(volume.state).toBe('serving');
    const blank = { sizeBytes: 2 ** 24, cipher: 'none', keyUri: undefined } as const;
    await volumes.create({ ...blank, name: 'plain' }, STARTUP);
    const { rotations } = watched;
    await expect(rotations.rotate(volumes, 'plain', true, STARTUP)).rejects.toMatchObject({
      ...{ code: 'CONFLICT', message: expect.stringContaining('volume encrypt') },
    });
    await watched.close();
  });
});

describe('the conversion of a none volume', () => {
  it('ends with everything encrypted, a key that is watched, and no plaintext in any file', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    const { volumes, jobs, rotations, watchdog } = watched;
    const blank = { sizeBytes: 2 ** 26, cipher: 'none', keyUri: undefined } as const;
    const volume = await volumes.create({ ...blank, name: 'v' }, STARTUP);
    await fill(volume);
    expect(watchdog.watches('v')).toBe(false);
    const { job } = await rotations.encrypt(volumes, 'v', KEY, 'aes-256-gcm', STARTUP);
    expect(view(watched, volume)).toMatchObject({ keyUri: KEY, rotation: { phase: 'encrypting' } });
    const again = rotations.encrypt(volumes, 'v', KEY, 'aes-256-gcm', STARTUP);
    await expect(again).rejects.toMatchObject({ code: 'CONFLICT' });
    // Cancelled, it can be taken up again; a rotation does not do.
    const cancelled = await jobs.cancel(job!.id);
    await rotations.cancelled(volumes, cancelled, STARTUP);
    expect(view(watched, volume)).toMatchObject({ rotation: { phase: 'paused' } });
    await expectFilled(volume);
    await rotations.encrypt(volumes, 'v', KEY, 'aes-256-gcm', STARTUP);
    await jobs.ended('v', 'encrypt');
    expect(volume.superblock).toMatchObject({ plain: false, rewriting: false, suite: 2 });
    expect(view(watched, volume)).toMatchObject({ rotation: null });
    expect(watchdog.watches('v')).toBe(true);
    await expectFilled(volume);
    const path = join(directory.path, 'volumes', 'v');
    const block = Buffer.from(patternBlock(77, 1));
    for (const name of readdirSync(path)) {
      expect([name, readFileSync(join(path, name)).includes(block)]).toEqual([name, false]);
    }
    await watched.close();
  });
});
