import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { Arena } from '../../src/native/arena.js';
import { FsStore } from '../../src/store/fs-store.js';
import { memoryDirectory } from '../support/key-fixtures.js';
import { PowerLossStore } from '../support/power-loss-store.js';
import { SealRecorder } from '../support/seal-recorder.js';
import { SealedVolume, volumePath } from '../support/sealed-volume.js';
import { SlotObserver, sharesKeystream } from '../support/slot-observer.js';
import { BLOCK, seededRandom } from '../support/volume-harness.js';
import { dekOfVolume, snapshotOf } from '../support/volume-parser.js';

const BLOCKS = 128;
const LIVES = Number(process.env.SEALBD_NONCE_LIVES ?? 4);
const SEED = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);
const TUNING = {
  segmentSlots: 24,
  appendBuffers: 4,
  checkpointSlots: 60,
  checkpointIntervalMs: 3_600_000,
  bufferAgeMs: 2,
  garbageRatio: 0.3,
  sparesMax: 2,
  reserveSegments: 1,
  poolSealBytes: Number.POSITIVE_INFINITY,
};
/** Two plaintexts that differ in every byte; every write is of one of them. */
const ONE = new Uint8Array(BLOCK).map((_, i) => (i * 7) & 0xff);
const OTHER = ONE.map((byte) => byte ^ 0x5a);
const DIFFERENCE = ONE.map((byte, i) => byte ^ OTHER[i]);

const cipher = new CipherPool({ threads: 1 });
const io = new Arena(1 << 20);
afterEach(() => vi.restoreAllMocks());
afterAll(async () => {
  // The way that short requests take, without another thread, was taken.
  expect(cipher.stats().inlineJobs).toBeGreaterThan(0);
  await cipher.destroy();
  io.free();
});

interface Scene {
  readonly dataDirectory: string;
  readonly tuning: typeof TUNING;
  readonly random: () => number;
  readonly observer: SlotObserver;
}

/** A fault that the store injected is what the test asked for; a volume that gave up over one stays readable. */
function onlyInjected(error: unknown): void {
  if (!(error instanceof Error) || !error.message.includes('injected')) throw error;
}

/** Overwrites, trims, flushes, checkpoints, compactions; `look` at the directory after each step. */
async function live(scene: Scene, volume: SealedVolume, path: string, steps: number): Promise<void> {
  const int = (max: number): number => Math.floor(scene.random() * max);
  for (let step = 0; step < steps; step++) {
    const lba = int(BLOCKS);
    const count = Math.min(1 + int(10), BLOCKS - lba);
    const what = scene.random();
    try {
      if (what < 0.75) {
        await volume.write(
          io,
          lba,
          ...Array.from({ length: count }, () => (scene.random() < 0.5 ? ONE : OTHER)),
        );
      } else if (what < 0.8) await volume.volume.trim(lba * BLOCK, count * BLOCK);
      else if (what < 0.85) await volume.write(io, 5, ONE);
      else if (what < 0.95) await volume.volume.flush();
      else if (what < 0.98) await volume.volume.checkpoint();
      else await volume.volume.compact();
    } catch (error) {
      onlyInjected(error);
    }
    if (scene.random() < 0.2) await new Promise((resolve) => setTimeout(resolve, 3));
    if (step % 3 === 0) scene.observer.look(path);
  }
  scene.observer.look(path);
}

/** The first life, on a store whose writes fail and come short; its end is a power loss. Returns what is left. */
async function firstLife(
  suite: 1 | 2,
  tuning: typeof TUNING,
  random: () => number,
): Promise<{ scene: Scene; image: string; stop: () => Promise<void> }> {
  const dataDirectory = memoryDirectory();
  const path = volumePath(dataDirectory);
  mkdirSync(path, { recursive: true });
  const store = new PowerLossStore(await FsStore.open(path));
  store.random = random;
  const volume = await SealedVolume.create({ dataDirectory, cipher, tuning, store, suite, blocks: BLOCKS });
  const observer = new SlotObserver(dekOfVolume(dataDirectory, path, 'default'));
  const scene = { dataDirectory, tuning, random, observer };
  store.writeFaults = 0.05;
  await live(scene, volume, path, 60);
  const image = memoryDirectory();
  await store.lose(image, random);
  store.writeFaults = 0;
  observer.look(image);
  return { scene, image, stop: () => volume.stop() };
}

/** A copy of `path`, in use: as a crash, or the snapshot of a machine's disk, would leave it. */
async function copyOf(path: string): Promise<string> {
  const copy = memoryDirectory();
  for (const [name, bytes] of await snapshotOf(path)) writeFileSync(join(copy, name), bytes, { mode: 0o600 });
  return copy;
}

/** Many lives: each ends with a crash; each crash leaves a copy that goes on beside the original. */
async function lives(suite: 1 | 2, tuning: typeof TUNING, seed: number): Promise<SlotObserver> {
  const random = seededRandom(seed);
  const { scene, image, stop } = await firstLife(suite, tuning, random);
  const { observer, dataDirectory } = scene;
  const open = (path: string): Promise<SealedVolume> =>
    SealedVolume.open(path, { dataDirectory, cipher, tuning });
  const running = [stop];
  let path = image;
  for (let life = 0; life < LIVES; life++) {
    const twin = await copyOf(path);
    const [mine, theirs] = [await open(path), await open(twin)];
    running.push(
      () => mine.stop(),
      () => theirs.stop(),
    );
    // From the same state on, with the same lengths: whatever could coincide, coincides.
    await live(scene, mine, path, 25);
    await live(scene, theirs, twin, 25);
    const crashed = await copyOf(random() < 0.5 ? path : twin);
    // What was copied lives on for a while: the copy's tail is behind the original's.
    await live(scene, mine, path, 5);
    path = crashed;
  }
  for (const end of running) await end();
  for (const each of [image, path]) observer.look(each);
  return observer;
}

describe.each([
  { suite: 2 as const, name: 'aes-256-gcm' },
  { suite: 1 as const, name: 'aes-256-ctr' },
])('keystream, $name', ({ suite }) => {
  it(`is used once, over overwrites, failed writes, crashes, compaction and copied directories, seed ${SEED}`, async () => {
    const recorder = new SealRecorder().install();
    const observer = await lives(suite, TUNING, SEED + suite);
    expect(recorder.repeats).toEqual([]);
    expect(recorder.positions).toBeGreaterThan(1000);
    expect(recorder.inline).toBeGreaterThan(300);
    expect(observer.conflicts).toEqual([]);
    expect(observer.segments).toBeGreaterThan(30);
    expect(observer.slots).toBeGreaterThan(500);
    expect(sharesKeystream(observer.ciphertexts(), DIFFERENCE)).toBe(false);
  });

  it(`is used once where runs are sealed by the pool, seed ${SEED}`, async () => {
    const recorder = new SealRecorder().install();
    const observer = await lives(suite, { ...TUNING, poolSealBytes: 2 * BLOCK }, SEED + 10 + suite);
    expect(recorder.repeats).toEqual([]);
    expect(recorder.pooled).toBeGreaterThan(100);
    expect(observer.conflicts).toEqual([]);
    expect(sharesKeystream(observer.ciphertexts(), DIFFERENCE)).toBe(false);
  });
});

describe('the watch itself', () => {
  it('sees a keystream that is used twice', () => {
    const keystream = Buffer.from(ONE.map((_, i) => (i * i * 31) & 0xff));
    const [a, b] = [ONE, OTHER].map((plain) => Buffer.from(plain.map((byte, i) => byte ^ keystream[i])));
    expect(sharesKeystream([a, b], DIFFERENCE)).toBe(true);
    expect(sharesKeystream([a, Buffer.from(a)], DIFFERENCE)).toBe(true);
    expect(sharesKeystream([a, OTHER as Buffer], DIFFERENCE)).toBe(false);
  });
});
