import { mkdirSync, rmSync } from 'node:fs';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { isSealbdError } from '../../src/base/errors.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { addon } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import type { SuiteId } from '../../src/segment/format.js';
import { FsStore } from '../../src/store/fs-store.js';
import { type Image, lay, Mutator } from '../support/disk-mutations.js';
import { memoryDirectory } from '../support/key-fixtures.js';
import { SealedVolume, volumePath } from '../support/sealed-volume.js';
import { BLOCK, patternBlock, seededRandom } from '../support/volume-harness.js';
import {
  HEADER,
  parseSegment,
  readFiles,
  SLOT,
  slotBytes,
  slotMeta,
  slotsIn,
  snapshotOf,
} from '../support/volume-parser.js';

const BLOCKS = 96;
/** Mutations of each suite and image; the documented long run sets it to thousands. */
const COUNT = Number(process.env.SEALBD_TAMPER_COUNT ?? 70);
const SEED = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);
const TUNING = {
  segmentSlots: 16,
  appendBuffers: 4,
  checkpointSlots: 10_000,
  checkpointIntervalMs: 3_600_000,
  garbageRatio: 0.99,
  sparesMax: 2,
  reserveSegments: 1,
};
const SUITES = [
  { suite: 2 as const, name: 'aes-256-gcm' },
  { suite: 1 as const, name: 'aes-256-ctr' },
  { suite: 0 as const, name: 'none' },
];
const LOST = -1;

/** The state of every block after some number of tail slots: what a volume may legally show. */
type Versions = readonly number[];

interface Original {
  readonly image: Image;
  /** First the state at the last checkpoint, then the state after each slot behind it. */
  readonly states: readonly Versions[];
}

const cipher = new CipherPool({ threads: 1 });
const io = new Arena(1 << 20);
afterAll(async () => {
  // The way that short requests take, without another thread, was taken.
  expect(cipher.stats().inlineJobs).toBeGreaterThan(0);
  await cipher.destroy();
  io.free();
});

function contentOf(lba: number, version: number): Uint8Array {
  return version === 0 ? new Uint8Array(BLOCK) : patternBlock(lba, version);
}

/** Writes, trims, compactions and checkpoints, and perhaps a tail behind the last one. */
async function life(
  volume: SealedVolume,
  random: () => number,
  tail: boolean,
): Promise<{ states: Versions[] }> {
  const int = (max: number): number => Math.floor(random() * max);
  const now: number[] = new Array(BLOCKS).fill(0);
  let version = 0;
  const states: Versions[] = [];
  const write = async (): Promise<void> => {
    const lba = int(BLOCKS);
    const count = Math.min(1 + int(5), BLOCKS - lba);
    const blocks = Array.from({ length: count }, (_, i) => patternBlock(lba + i, version + 1 + i));
    await volume.write(io, lba, ...blocks);
    for (let i = 0; i < count; i++) {
      now[lba + i] = ++version;
      states.push([...now]);
    }
  };
  const trim = async (): Promise<void> => {
    const lba = int(BLOCKS);
    const count = Math.min(1 + int(5), BLOCKS - lba);
    await volume.volume.trim(lba * BLOCK, count * BLOCK);
    now.fill(0, lba, lba + count);
    states.push([...now]);
    // So that the log has the same order as this list.
    await volume.volume.flush();
  };
  for (let step = 0; step < 90; step++) {
    if (random() < 0.9) await write();
    else await trim();
    if (step % 30 === 20) await volume.volume.checkpoint();
    if (step === 60) await volume.volume.compact();
  }
  await volume.volume.checkpoint();
  states.length = 0;
  states.push([...now]);
  for (let step = 0; tail && step < 25; step++) {
    if (random() < 0.85) await write();
    else await trim();
    if (random() < 0.2) await volume.volume.flush();
  }
  if (tail) await volume.volume.flush();
  return { states };
}

/** A volume that was stopped, or killed with a tail behind its last checkpoint; and what it held. */
async function makeOriginal(suite: SuiteId, seed: number, killed: boolean): Promise<Original> {
  const dataDirectory = memoryDirectory();
  const path = volumePath(dataDirectory);
  mkdirSync(path, { recursive: true });
  const store = await FsStore.open(path);
  const volume = await SealedVolume.create({
    dataDirectory,
    cipher,
    tuning: TUNING,
    store,
    suite,
    blocks: BLOCKS,
  });
  const { states } = await life(volume, seededRandom(seed), killed);
  const left = await snapshotOf(path);
  await volume.stop();
  const image: Image = killed ? left : readFiles(path);
  const [keyring] = readFiles(dataDirectory).entries();
  if (keyring !== undefined) image.set(...keyring);
  return { image, states };
}

/** The version of each block, LOST where it is EIO. Any content that was never written there fails the test. */
async function readAll(volume: SealedVolume): Promise<number[]> {
  const versions: number[] = [];
  for (let lba = 0; lba < BLOCKS; lba++) {
    try {
      const block = await volume.read(io, lba);
      const version = new DataView(block.buffer).getUint32(4, true);
      expect(Buffer.compare(block, contentOf(lba, version)), `block ${lba} holds something else`).toBe(0);
      versions.push(version);
    } catch (error) {
      if (!isSealbdError(error, 'EIO')) throw error;
      versions.push(LOST);
    }
  }
  return versions;
}

/** Blocks of which some slot is not in its place any more: these alone may be EIO. */
function touched(original: Image, image: Image): Set<number> {
  const blocks = new Set<number>();
  for (const [name, bytes] of original) {
    if (!name.startsWith('seg-')) continue;
    const after = image.get(name);
    if (after === bytes) continue;
    for (let i = 0; i < slotsIn(bytes); i++) {
      const slot = slotBytes(bytes, i);
      if (after === undefined || !slot.equals(slotBytes(after, i))) blocks.add(slotMeta(slot).lba);
    }
  }
  return blocks;
}

/** Some state of the list explains what was read, the lost blocks aside. */
function explained(read: readonly number[], states: readonly Versions[]): boolean {
  return states.some((state) => read.every((version, lba) => version === LOST || version === state[lba]));
}

type Outcome = 'whole' | 'cut' | 'lost blocks' | 'refused';

async function openMutated(dataDirectory: string): Promise<SealedVolume | undefined> {
  try {
    return await SealedVolume.open(volumePath(dataDirectory), { dataDirectory, cipher, tuning: TUNING });
  } catch (error) {
    const known = isSealbdError(error, 'INTEGRITY') || isSealbdError(error, 'KEY_UNAVAILABLE');
    if (!known || error.message === '') throw error;
    return undefined;
  }
}

async function judge({ image: original, states }: Original, image: Image, again: boolean): Promise<Outcome> {
  const dataDirectory = lay(image);
  try {
    const volume = await openMutated(dataDirectory);
    if (volume === undefined) return 'refused';
    let read: number[];
    try {
      read = await readAll(volume);
      expect(explained(read, states), `read ${read}`).toBe(true);
      const may = touched(original, image);
      const wrongly = read.flatMap((version, lba) => (version === LOST && !may.has(lba) ? [lba] : []));
      expect(wrongly, 'EIO in blocks that nobody touched').toEqual([]);
      if (again) {
        await volume.volume.compact();
        expect(await readAll(volume), 'after compaction').toEqual(read);
      }
    } finally {
      await volume.stop();
    }
    if (again) {
      const reopened = await SealedVolume.open(volumePath(dataDirectory), {
        dataDirectory,
        cipher,
        tuning: TUNING,
      });
      expect(await readAll(reopened).finally(() => reopened.stop()), 'opened again').toEqual(read);
    }
    if (read.includes(LOST)) return 'lost blocks';
    return explained(read, states.slice(-1)) ? 'whole' : 'cut';
  } finally {
    rmSync(dataDirectory, { recursive: true });
  }
}

afterEach(() => {
  expect(addon.secureMemory().segmentKeysUsed, 'segment keys left behind').toBe(0);
});

describe.each(SUITES)('tampering with a volume, $name', ({ suite }) => {
  it.each([
    { what: 'stopped', killed: false },
    { what: 'killed with a tail', killed: true },
  ])(
    `gives the right data, EIO or a refusal: ${COUNT} mutations of a $what volume, seed ${SEED}`,
    { timeout: 3_600_000 },
    async ({ killed }) => {
      const original = await makeOriginal(suite, SEED, killed);
      expect(await judge(original, original.image, true)).toBe('whole');
      const outcomes: Record<Outcome, number> = { whole: 0, cut: 0, 'lost blocks': 0, refused: 0 };
      for (let i = 0; i < COUNT; i++) {
        const seed = SEED + i * 7919 + suite;
        const { image, done } = new Mutator(seededRandom(seed)).mutate(original.image);
        try {
          const outcome = await judge(original, image, i % 4 === 0);
          outcomes[outcome]++;
          // Behind the last checkpoint of a stopped volume there is nothing to cut.
          if (!killed) expect(outcome).not.toBe('cut');
        } catch (error) {
          throw new Error(`mutation ${i}, SEALBD_SEED=${SEED}: ${done.join('; ')}`, { cause: error });
        }
      }
      // The mutations must reach what they are meant to reach.
      if (COUNT >= 50) {
        expect(outcomes.refused).toBeGreaterThan(0);
        expect(outcomes['lost blocks']).toBeGreaterThan(0);
      }
    },
  );
});

describe.each(SUITES)('a bit flipped in one slot, $name', ({ suite }) => {
  it('makes exactly its block EIO, wherever in the slot it is; the neighbours are read in the same request', async () => {
    const { image, states } = await makeOriginal(suite, SEED, false);
    const now = states[0];
    const random = seededRandom(SEED);
    const newest = newestSlots(image, now);
    expect(newest.length).toBeGreaterThan(20);
    for (const at of [0, 1, 2047, 4095, 4096, 4103, 4108, 4109, 4112, 4115, 4116, 4127]) {
      const { name, position, lba } = newest[Math.floor(random() * newest.length)];
      // The last bytes of a `none` tag are zeros that nobody reads.
      if (suite === 0 && at >= 4116) continue;
      const bytes = Buffer.from(image.get(name)!);
      bytes[HEADER + position * SLOT + at] ^= 1 << Math.floor(random() * 8);
      const dataDirectory = lay(new Map(image).set(name, bytes));
      const volume = await SealedVolume.open(volumePath(dataDirectory), {
        dataDirectory,
        cipher,
        tuning: TUNING,
      });
      try {
        const wanted = now.map((version, i) => (i === lba ? LOST : version));
        expect(await readAll(volume), `byte ${at} of slot ${position}`).toEqual(wanted);
        const whole = volume.volume.read(io, 0, 0, BLOCKS * BLOCK);
        await expect(Promise.resolve(whole)).rejects.toMatchObject({
          code: 'EIO',
          deviceOffset: lba * BLOCK,
        });
        const { lost } = await volume.volume.verify({
          signal: new AbortController().signal,
          onProgress: () => undefined,
        });
        expect(lost).toEqual([{ offset: lba * BLOCK, length: BLOCK }]);
        expect(volume.volume.stats().damagedReads).toBeGreaterThan(0);
      } finally {
        await volume.stop();
        rmSync(dataDirectory, { recursive: true });
      }
    }
  });
});

/** For each mapped block the one slot that holds it: compaction leaves several of the same sequence, then none. */
function newestSlots(image: Image, now: Versions): { name: string; position: number; lba: number }[] {
  const found = new Map<number, { name: string; position: number; sequence: number; copies: number }>();
  for (const [name, bytes] of image) {
    if (!name.startsWith('seg-') || parseSegment(bytes) === undefined) continue;
    for (let position = 0; position < slotsIn(bytes); position++) {
      const { lba, sequence, kind } = slotMeta(slotBytes(bytes, position));
      if (kind !== 1 || lba >= BLOCKS || now[lba] === 0) continue;
      const before = found.get(lba);
      if (before === undefined || sequence > before.sequence)
        found.set(lba, { name, position, sequence, copies: 1 });
      else if (sequence === before.sequence) before.copies++;
    }
  }
  return [...found].flatMap(([lba, { name, position, copies }]) =>
    copies === 1 ? [{ name, position, lba }] : [],
  );
}

describe.each(SUITES)('the tail behind the last checkpoint, $name', ({ suite }) => {
  it('may be cut at its end, but damage in front of a slot that says it was flushed is a refusal', async () => {
    const { image, states } = await makeOriginal(suite, SEED, true);
    const tail = tailSlots(image);
    expect(tail.length).toBeGreaterThan(20);
    const flushed = tail.filter(({ sequence }) => tail.some(({ durable }) => durable >= sequence));
    expect(flushed.length).toBeGreaterThan(0);
    const withDamage = (name: string, position: number): Image => {
      const bytes = Buffer.from(image.get(name)!);
      bytes[HEADER + position * SLOT + 100] ^= 1;
      return new Map(image).set(name, bytes);
    };
    for (const { name, position } of [flushed[0], flushed[flushed.length >> 1], flushed.at(-1)!]) {
      const outcome = await judge({ image, states }, withDamage(name, position), false);
      expect(outcome, `${name}, slot ${position}`).toBe('refused');
    }
    const last = tail.at(-1)!;
    expect(await judge({ image, states }, withDamage(last.name, last.position), false)).toBe('cut');
  });
});

/** The slots behind the cut, in the order of the log. */
function tailSlots(image: Image): { name: string; position: number; sequence: number; durable: number }[] {
  const root = image.get('checkpoint')!;
  const covered = Number(root.readBigUInt64LE(40));
  const head = Number(root.readBigUInt64LE(64));
  const slots = [...image].flatMap(([name, bytes]) => {
    const segment = name.startsWith('seg-') ? parseSegment(bytes) : undefined;
    if (segment === undefined || segment.kind !== 1 || segment.id < head) return [];
    return Array.from({ length: slotsIn(bytes) }, (_, position) => {
      const slot = slotBytes(bytes, position);
      const { sequence } = slotMeta(slot);
      return { name, position, sequence, durable: sequence - slot.readUIntLE(4109, 3), kind: slot[4108] };
    }).filter(({ sequence, kind }) => sequence > covered && sequence < covered + 1000 && kind !== 0);
  });
  return slots.sort((a, b) => a.sequence - b.sequence);
}
