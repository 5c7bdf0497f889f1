import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { SuiteId } from '../../src/segment/format.js';
import { FsStore } from '../../src/store/fs-store.js';
import type { Store } from '../../src/store/store.js';
import { History } from '../support/history.js';
import { PowerLossStore } from '../support/power-loss-store.js';
import { BLOCK, patternBlock, seededRandom, VolumeHarness } from '../support/volume-harness.js';

const BLOCKS = 256;
/** Rounds of each suite; the documented long run sets it to thousands. */
const ROUNDS = Number(process.env.SEALBD_CRASH_ROUNDS ?? 20);
const SEED = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);
/** Runs that were sealed or opened on the calling thread. */
let shortJobs = 0;

function versionOf(block: Uint8Array): number {
  return new DataView(block.buffer, block.byteOffset, BLOCK).getUint32(4, true);
}

/** Further losses of a round, each in a life that starts from what the one before left. */
const LIVES = 3;

/** What the round is at, for the report of one that stalls. */
let at = '';
const ROUND_TIMEOUT_MS = 120_000;

async function withDeadline(work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const stalled = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`it stalls: ${at}`)), ROUND_TIMEOUT_MS);
  });
  await Promise.race([work, stalled]).finally(() => clearTimeout(timer));
}

/** Lives of a volume: random requests, then a power loss at a random instant, in the end the check of what is there. */
async function round(suite: SuiteId, seed: number): Promise<void> {
  const random = seededRandom(seed);
  const int = (max: number): number => Math.floor(random() * max);
  // Large segments have several buffers: then writes and syncs of one file overlap.
  const large = random() < 0.4;
  let makeStore: (fs: FsStore) => Promise<Store> = async (fs) => fs;
  const harness = await VolumeHarness.create({
    suite,
    sizeBytes: BLOCKS * BLOCK,
    tuning: {
      segmentSlots: large ? 1200 : 24,
      checkpointSlots: (large ? 400 : 40) + int(200),
      garbageRatio: random() < 0.5 ? 0.2 : 0.9,
      appendBuffers: 1 + int(4),
    },
    store: async (path) => makeStore(await FsStore.open(path, { create: true })),
  });
  await harness.stop();
  const history = new History(BLOCKS);
  const images = await mkdtemp(join(tmpdir(), 'sealbd-loss-'));
  let path = harness.path;
  try {
    for (let life = 0; life < LIVES; life++) {
      let store: PowerLossStore | undefined;
      makeStore = async (fs) => {
        store = await PowerLossStore.adopt(fs);
        store.random = random;
        store.latencyMs = random() < 0.5 ? 4 : 0;
        return store;
      };
      at = `opening life ${life}`;
      const next = join(images, String(life));
      const opening = harness.open(false, path).then(() => settleAll(harness, history));
      if (random() < 0.2) await loseWhileOpening(opening, () => store, next, random);
      else {
        await opening;
        if (store === undefined) throw new Error('the store was not made');
        store.writeFaults = random() < 0.3 ? 0.05 : 0;
        await liveAndDie(harness, store, history, next, random, large ? 64 : 12);
      }
      at = `stopping life ${life}`;
      await harness.stop();
      history.thaw();
      path = next;
    }
    makeStore = async (fs) => fs;
    await check(harness, history, path);
    shortJobs += harness.cipher.stats().inlineJobs;
  } finally {
    await harness.destroy();
    await rm(images, { recursive: true, force: true });
  }
}

/** The power goes while recovery runs: whatever it had done, the next opening finds the same. */
async function loseWhileOpening(
  opening: Promise<void>,
  store: () => PowerLossStore | undefined,
  image: string,
  random: () => number,
): Promise<void> {
  for (let turns = Math.floor(random() * 60); turns > 0 || store() === undefined; turns--) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  await store()?.lose(image, random);
  await opening.catch(onlyInjected);
}

/** An open volume has settled for one version of each block, and made it durable. */
async function settleAll(harness: VolumeHarness, history: History): Promise<void> {
  for (let lba = 0; lba < BLOCKS; lba++) {
    history.settle(lba, wholeVersion(await harness.read(lba * BLOCK, BLOCK), lba, history));
  }
}

/** The version of a block, which must be one that is allowed, and whole. */
function wholeVersion(block: Uint8Array, lba: number, history: History): number {
  const version = versionOf(block);
  expect(history.allowed(lba), `block ${lba}`).toContain(version);
  const whole = version === 0 ? new Uint8Array(BLOCK) : patternBlock(lba, version);
  expect(Buffer.compare(block, whole), `block ${lba} is torn`).toBe(0);
  return version;
}

/** Versions are never used twice in a round, whatever life they belong to. */
let versions = 0;

async function liveAndDie(
  harness: VolumeHarness,
  store: PowerLossStore,
  history: History,
  image: string,
  random: () => number,
  blocksMax: number,
): Promise<void> {
  const int = (max: number): number => Math.floor(random() * max);
  const steps = 20 + int(120);
  const underWay = new Set<Promise<void>>();
  const start = (work: void | Promise<void>): void => {
    const settled = Promise.resolve(work).then(() => {
      underWay.delete(settled);
    });
    underWay.add(settled);
  };
  for (let i = 0; i < steps; i++) {
    const step = ++versions;
    const lba = int(BLOCKS);
    const blocks = Math.min(1 + int(blocksMax), BLOCKS - lba);
    const what = random();
    at = `step ${i} of ${steps}, ${what}, ${blocks} blocks from ${lba}`;
    if (what < 0.7) {
      for (let i = 0; i < blocks; i++) {
        harness.io.bytes.set(patternBlock(lba + i, step), i * BLOCK);
        history.issue(lba + i, step);
      }
      const doubt = (): void => {
        for (let i = 0; i < blocks; i++) history.doubt(lba + i, step);
      };
      await attempt(() => harness.volume.write(harness.io, 0, lba * BLOCK, blocks * BLOCK), doubt);
    } else if (what < 0.8) {
      for (let i = 0; i < blocks; i++) history.issue(lba + i, 0);
      await harness.volume.trim(lba * BLOCK, blocks * BLOCK);
    } else if (what < 0.93) {
      const done = history.flushing();
      const flush = harness.volume.flush().then(done, onlyInjected);
      if (random() < 0.7) await flush;
      else start(flush);
    } else if (what < 0.97) start(harness.volume.checkpoint().catch(onlyInjected));
    else if (what < 0.99) start(harness.volume.compact().catch(onlyInjected));
    else await new Promise((resolve) => setTimeout(resolve, int(10)));
  }
  // Let what is under way get to some arbitrary point.
  for (let turns = int(12); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve));
  at = 'losing power';
  history.freeze();
  await store.lose(image, random);
  store.writeFaults = 0;
  at = `waiting for ${underWay.size} requests`;
  await Promise.all(underWay);
}

/** A request may fail for a write fault: then its blocks are old or new. */
async function attempt(request: () => void | Promise<void>, onFailure: () => void): Promise<void> {
  try {
    await request();
  } catch (error) {
    onlyInjected(error);
    onFailure();
  }
}

/** A checkpoint or a compaction may fail for a write fault; the volume goes on, and the next one covers for it. */
function onlyInjected(error: unknown): void {
  if (!(error instanceof Error) || !error.message.includes('injected')) throw error;
}

async function check(harness: VolumeHarness, history: History, image: string): Promise<void> {
  for (let pass = 0; pass < 2; pass++) {
    await harness.open(false, image);
    await settleAll(harness, history);
    const signal = new AbortController().signal;
    const { lost, problems } = await harness.volume.verify({ signal, onProgress: () => undefined });
    expect({ lost, problems }).toEqual({ lost: [], problems: [] });
    await harness.stop();
  }
}

describe.each([
  { suite: 2 as const, name: 'aes-256-gcm' },
  { suite: 1 as const, name: 'aes-256-ctr' },
  { suite: 0 as const, name: 'none' },
])('power loss, $name', ({ suite }) => {
  it(`keeps every flushed block and tears none, over ${ROUNDS} losses, seed ${SEED}`, {
    timeout: 600_000,
  }, async () => {
    for (let i = 0; i < ROUNDS; i++) {
      const seed = SEED + i * 7919 + suite;
      try {
        await withDeadline(round(suite, seed));
      } catch (error) {
        throw new Error(`round ${i}, SEALBD_SEED=${SEED}`, { cause: error });
      }
    }
    // The way that short requests take, without another thread, was taken.
    expect(shortJobs).toBeGreaterThan(0);
  });
});
