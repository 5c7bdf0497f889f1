/** Requests to change a DEK that meet each other, a check of the key, or a rewriting that fails. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { EngineVolume } from '../../src/daemon/engine.js';
import type { ManagedVolume } from '../../src/daemon/managed-volume.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { keyView } from '../../src/daemon/volume-views.js';
import { Arena } from '../../src/native/arena.js';
import { type Gate, gate, ioError } from '../support/hooked-store.js';
import { ManualClock } from '../support/manual-clock.js';
import { until } from '../support/until.js';
import { BLOCK, patternBlock } from '../support/volume-harness.js';
import {
  createVolume,
  type Watched,
  WatchedDirectory,
  type WatchedOptions,
} from '../support/watched-volumes.js';

const BLOCKS = 2048;
/** Before the first retry of a rewriting. */
const RETRY_MS = 5_000;

interface Scene extends Watched {
  readonly directory: WatchedDirectory;
  readonly volume: ManagedVolume;
  readonly path: string;
}

async function scene(cipher: 'none' | 'aes-256-gcm', options: WatchedOptions = {}): Promise<Scene> {
  const directory = new WatchedDirectory();
  const watched = await directory.start(options);
  const blank = { name: 'v', sizeBytes: 2 ** 26, cipher: 'none', keyUri: undefined } as const;
  const volume =
    cipher === 'none'
      ? await watched.volumes.create(blank, STARTUP)
      : await createVolume(watched.volumes, 'v', 'scripted:a');
  const io = new Arena(BLOCK);
  for (let lba = 0; lba < BLOCKS; lba++) {
    io.bytes.set(patternBlock(lba, 1));
    await volume.device!.write(io, 0, lba * BLOCK, BLOCK);
  }
  await volume.device!.flush();
  io.free();
  return { ...watched, directory, volume, path: join(directory.path, 'volumes', 'v') };
}

const rotate = ({ rotations, volumes }: Watched) => rotations.rotate(volumes, 'v', true, STARTUP);
const ids = ({ volume }: Scene) => volume.superblock!.deks.map(({ id, state }) => `${id} ${state}`);
const phase = ({ rotations, volume }: Scene) =>
  keyView(volume, undefined, rotations.isAtWork('v'))?.rotation?.phase;

/** The rewriting of this opening waits at the gate, then does its work. */
function holdRewriting({ volume }: Scene): Gate {
  const held = gate();
  const device = volume.device!;
  const rewrite = device.rewrite.bind(device);
  device.rewrite = async (options) => {
    await held.opened;
    return rewrite(options);
  };
  return held;
}

/** The next rewritings of this opening fail, so many of them. */
function failRewriting({ volume }: Scene, times: number): void {
  const device = volume.device!;
  const rewrite: EngineVolume['rewrite'] = device.rewrite.bind(device);
  let left = times;
  device.rewrite = async (options) => {
    if (left-- > 0) throw ioError('write');
    return rewrite(options);
  };
}

function damageOneSegment(path: string): void {
  const [bad] = readdirSync(path)
    .filter((name) => /^seg-[0-9a-f]{16}$/.test(name))
    .sort();
  const bytes = readFileSync(join(path, bad));
  bytes[BLOCK + 10] ^= 1;
  writeFileSync(join(path, bad), bytes);
}

/** Copy 2 can not be written until the result was called: a directory that is not empty gives way to no file. */
function breakCopy2(path: string): () => void {
  const copy2 = join(path, 'superblock.bak');
  const before = readFileSync(copy2);
  rmSync(copy2);
  mkdirSync(join(copy2, 'in-the-way'), { recursive: true });
  return () => {
    rmSync(copy2, { recursive: true });
    writeFileSync(copy2, before);
  };
}

async function outcomes(...work: Promise<unknown>[]): Promise<unknown[]> {
  const settled = await Promise.allSettled(work);
  return settled.map((result) => (result.status === 'fulfilled' ? 'done' : result.reason.code));
}

const eventsOf = async ({ audit }: Watched) => (await audit()).map(({ event }) => event);

describe('of two requests at once the second changes nothing', () => {
  it('where both convert, under different keys and ciphers', async () => {
    const watched = await scene('none');
    const { rotations, volumes, jobs, volume } = watched;
    const held = holdRewriting(watched);
    const first = rotations.encrypt(volumes, 'v', 'scripted:a', 'aes-256-gcm', STARTUP);
    const second = rotations.encrypt(volumes, 'v', 'other:b', 'aes-256-ctr', STARTUP);
    expect(await outcomes(first, second)).toEqual(['done', 'CONFLICT']);
    expect(volume.superblock).toBe((await first).superblock);
    held.open();
    await jobs.ended('v', 'encrypt');
    expect(volume.superblock).toMatchObject({
      suite: 2,
      plain: false,
      deks: [{ id: 1, state: 'active', keyUri: 'scripted:a' }],
    });
    await watched.close();
  });

  it('where both rotate', async () => {
    const watched = await scene('aes-256-gcm');
    const held = holdRewriting(watched);
    const [first, second] = [rotate(watched), rotate(watched)];
    expect(await outcomes(first, second)).toEqual(['done', 'CONFLICT']);
    expect(watched.volume.superblock).toBe((await first).superblock);
    expect(ids(watched)).toEqual(['1 retired', '2 active']);
    held.open();
    await watched.jobs.ended('v', 'reencrypt');
    expect(ids(watched)).toEqual(['2 active']);
    expect((await eventsOf(watched)).filter((event) => event === 'rotate')).toEqual(['rotate']);
    await watched.close();
  });
});

it('a cancel does not take back what was asked for after it', async () => {
  const watched = await scene('aes-256-gcm');
  const { rotations, volumes, jobs, volume } = watched;
  const held = holdRewriting(watched);
  const { job } = await rotate(watched);
  const cancelling = jobs.cancel(job!.id);
  held.open();
  const cancelled = await cancelling;
  expect(cancelled.state).toBe('cancelled');
  const heldAgain = holdRewriting(watched);
  await rotate(watched);
  await rotations.cancelled(volumes, cancelled, STARTUP);
  expect([volume.superblock!.rewriting, rotations.isAtWork('v')]).toEqual([true, true]);
  heldAgain.open();
  await jobs.ended('v', 'reencrypt');
  expect(ids(watched)).toEqual(['3 active']);
  await watched.close();
});

it('a check of the key that overlaps the end of the old DEK finds the key valid', async () => {
  const watched = await scene('aes-256-gcm');
  const { directory, jobs, watchdog, volume } = watched;
  const held = holdRewriting(watched);
  await rotate(watched);
  const answering = gate();
  let waiting = 0;
  const service = directory.one;
  const ask = service.ask.bind(service);
  service.ask = async () => {
    waiting++;
    await answering.opened;
    return ask();
  };
  const checking = watchdog.check('v');
  await until('both DEKs are asked about', () => waiting === 2);
  held.open();
  await jobs.ended('v', 'reencrypt');
  expect(ids(watched)).toEqual(['2 active']);
  answering.open();
  await checking;
  expect(volume.keyCheck).toMatchObject({ state: 'valid', reason: undefined });
  const { audit } = watched;
  const states = (await audit()).flatMap((event) => (event.event === 'key-state' ? [event.to] : []));
  expect(states).toEqual(['valid']);
  await watched.close();
});

describe('a rewriting that fails', () => {
  it('is shown as waiting, and tried again after a minute, then after two', async () => {
    const clock = new ManualClock();
    const watched = await scene('aes-256-gcm', { retryClock: clock });
    const { jobs, volume } = watched;
    failRewriting(watched, 2);
    const { job } = await rotate(watched);
    await jobs.ended('v', 'reencrypt');
    expect(jobs.get(job!.id)).toMatchObject({ state: 'failed', error: { message: expect.any(String) } });
    expect([phase(watched), volume.superblock!.rewriting]).toEqual(['waiting', true]);
    const runs = () => jobs.list().filter(({ kind }) => kind === 'reencrypt').length;
    clock.advance(RETRY_MS - 1);
    await turn();
    expect(runs()).toBe(1);
    clock.advance(1);
    await until('the second attempt', () => runs() === 2);
    await jobs.ended('v', 'reencrypt');
    clock.advance(2 * RETRY_MS - 1);
    await turn();
    expect(runs()).toBe(2);
    clock.advance(1);
    await until('the third attempt', () => runs() === 3);
    await jobs.ended('v', 'reencrypt');
    expect([phase(watched), ids(watched)]).toEqual([undefined, ['2 active']]);
    await watched.close();
  });

  it('is tried again by the opening of the volume that it failed in, and by no other', async () => {
    const clock = new ManualClock();
    const watched = await scene('aes-256-gcm', { retryClock: clock });
    const { jobs, volumes } = watched;
    failRewriting(watched, 1);
    await rotate(watched);
    await jobs.ended('v', 'reencrypt');
    clock.advance(RETRY_MS / 2);
    await volumes.stop('v', STARTUP);
    await volumes.start('v', STARTUP);
    failRewriting(watched, 1);
    clock.advance(0);
    await until('another opening goes on at once', () => jobs.list().length === 2);
    await jobs.ended('v', 'reencrypt');
    clock.advance(RETRY_MS / 2);
    await turn();
    expect(jobs.list().length).toBe(2);
    clock.advance(RETRY_MS / 2);
    await until('it tries again', () => jobs.list().length === 3);
    await jobs.ended('v', 'reencrypt');
    expect(ids(watched)).toEqual(['2 active']);
    await watched.close();
  });

  it('for blocks that can not be read lets go of every DEK but theirs', async () => {
    const watched = await scene('aes-256-gcm');
    const { jobs, path } = watched;
    damageOneSegment(path);
    for (const newest of [2, 3]) {
      const { job } = await rotate(watched);
      await jobs.ended('v', 'reencrypt');
      expect(jobs.get(job!.id)).toMatchObject({ state: 'failed', error: { code: 'INTEGRITY' } });
      expect(ids(watched)).toEqual(['1 retired', `${newest} active`]);
    }
    await watched.close();
  });

  it('for blocks that can not be read, and in copy 2 of the superblock, is tried again all the same', async () => {
    const clock = new ManualClock();
    const watched = await scene('aes-256-gcm', { retryClock: clock });
    const { jobs, volumes, path } = watched;
    damageOneSegment(path);
    await rotate(watched);
    await jobs.ended('v', 'reencrypt');
    failRewriting(watched, 1);
    await rotate(watched);
    await jobs.ended('v', 'reencrypt');
    expect(ids(watched)).toEqual(['1 retired', '2 retired', '3 active']);
    // No retry of this opening is due yet but that of the attempt which begins now.
    await volumes.stop('v', STARTUP);
    await volumes.start('v', STARTUP);
    const restore = breakCopy2(path);
    clock.advance(0);
    await until('it goes on', () => jobs.list().length === 3);
    await jobs.ended('v', 'reencrypt');
    expect(ids(watched)).toEqual(['1 retired', '3 active']);
    expect(watched.volume.headerIsWhole).toBe(false);
    restore();
    clock.advance(RETRY_MS);
    await until('it is tried again', () => watched.volume.headerIsWhole);
    await jobs.ended('v', 'reencrypt');
    await watched.close();
  });

  it('at the last step, in copy 2 of the superblock, is tried again until that copy is right', async () => {
    const clock = new ManualClock();
    const watched = await scene('aes-256-gcm', { retryClock: clock });
    const { jobs, volume, path } = watched;
    const held = holdRewriting(watched);
    const { job } = await rotate(watched);
    const wrapped = Buffer.from(volume.superblock!.deks[0].wrapped);
    const restore = breakCopy2(path);
    held.open();
    await jobs.ended('v', 'reencrypt');
    expect(jobs.get(job!.id).state).toBe('failed');
    expect([ids(watched), volume.headerIsWhole]).toEqual([['2 active'], false]);
    restore();
    const copy2 = join(path, 'superblock.bak');
    expect(readFileSync(copy2).includes(wrapped)).toBe(true);
    clock.advance(RETRY_MS);
    await until('it is tried again', () => volume.headerIsWhole);
    await jobs.ended('v', 'reencrypt');
    expect(readFileSync(copy2).includes(wrapped)).toBe(false);
    expect(readFileSync(copy2)).toEqual(readFileSync(join(path, 'superblock')));
    await watched.close();
  });
});

/** What a timer that was due has started by now. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
