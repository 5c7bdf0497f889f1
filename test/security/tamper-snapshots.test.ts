/**
 * Tampering with the files of a volume that has snapshots: each snapshot is there, with what it had or EIO, or the volume refuses
 * to open; none vanishes, and none shows what it did not have. SEALBD_TAMPER_COUNT sets how often.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { afterAll, expect, it } from 'vitest';
import { isSealbdError } from '../../src/base/errors.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import type { BlockDevice } from '../../src/device/block-device.js';
import { Arena } from '../../src/native/arena.js';
import { FsStore } from '../../src/store/fs-store.js';
import { type Image, lay, Mutator } from '../support/disk-mutations.js';
import { memoryDirectory } from '../support/key-fixtures.js';
import { SealedVolume, volumePath } from '../support/sealed-volume.js';
import { BLOCK, patternBlock, seededRandom } from '../support/volume-harness.js';
import { readFiles } from '../support/volume-parser.js';

const BLOCKS = 96;
const COUNT = Number(process.env.SEALBD_TAMPER_COUNT ?? 40);
const SEED = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);
const TUNING = {
  segmentSlots: 16,
  appendBuffers: 4,
  checkpointSlots: 10_000,
  checkpointIntervalMs: 3_600_000,
  sparesMax: 1,
  reserveSegments: 1,
};
const NAMES = ['a', 'b', 'c'];
const LOST = -1;

type Versions = readonly number[];

const cipher = new CipherPool({ threads: 1 });
const io = new Arena(1 << 20);
afterAll(async () => {
  await cipher.destroy();
  io.free();
});

async function makeOriginal(random: () => number): Promise<{ image: Image; states: Versions[] }> {
  const dataDirectory = memoryDirectory();
  const path = volumePath(dataDirectory);
  mkdirSync(path, { recursive: true });
  const store = await FsStore.open(path);
  const sealed = await SealedVolume.create({
    ...{ dataDirectory, cipher, tuning: TUNING, store },
    suite: 2,
    blocks: BLOCKS,
  });
  const now: number[] = new Array(BLOCKS).fill(0);
  const states: Versions[] = [];
  let version = 0;
  const live = async (): Promise<void> => {
    for (let i = 0; i < 60; i++) {
      const lba = Math.floor(random() * BLOCKS);
      await sealed.write(io, lba, patternBlock(lba, ++version));
      now[lba] = version;
    }
    await sealed.volume.checkpoint();
  };
  for (const name of NAMES) {
    await live();
    await sealed.volume.createSnapshot(name);
    states.push([...now]);
  }
  await live();
  states.push([...now]);
  await sealed.stop();
  const image: Image = readFiles(path);
  for (const [name, bytes] of readFiles(dataDirectory)) if (name === 'keyring.json') image.set(name, bytes);
  return { image, states };
}

/** Every block is what the state says, or lost; says how many are lost. */
async function lostOf(device: Pick<BlockDevice, 'read'>, state: Versions, what: string): Promise<number> {
  let lost = 0;
  for (let lba = 0; lba < BLOCKS; lba++) {
    let found = LOST;
    try {
      await device.read(io, 0, lba * BLOCK, BLOCK);
      const wanted = state[lba] === 0 ? new Uint8Array(BLOCK) : patternBlock(lba, state[lba]);
      found = Buffer.compare(io.bytes.subarray(0, BLOCK), wanted) === 0 ? state[lba] : Number.NaN;
    } catch (error) {
      if (!isSealbdError(error, 'EIO')) throw error;
      lost++;
    }
    expect([what, lba, found === LOST ? LOST : state[lba]]).toEqual([what, lba, found]);
  }
  return lost;
}

async function lostOfSnapshot({ volume }: SealedVolume, name: string, state: Versions): Promise<number> {
  const device = volume.snapshots.device(name)!;
  try {
    const detach = device.attach(() => undefined);
    try {
      return await lostOf(device, state, name);
    } finally {
      detach();
    }
  } catch (error) {
    // A damaged one takes nobody in.
    if (!isSealbdError(error, 'EIO')) throw error;
    return BLOCKS;
  }
}

it(`snapshots have what they had, or EIO, or the volume refuses: ${COUNT} mutations, seed ${SEED}`, async () => {
  const random = seededRandom(SEED);
  const { image: original, states } = await makeOriginal(random);
  const mutator = new Mutator(random);
  const counts = { refused: 0, whole: 0, lost: 0 };
  for (let i = 0; i < COUNT; i++) {
    const { image, done } = mutator.mutate(original);
    const dataDirectory = lay(image);
    const options = { dataDirectory, cipher, tuning: TUNING };
    const sealed = await SealedVolume.open(volumePath(dataDirectory), options).catch((error: unknown) => {
      if (!isSealbdError(error, 'INTEGRITY') && !isSealbdError(error, 'KEY_UNAVAILABLE')) throw error;
      return undefined;
    });
    try {
      if (sealed === undefined) {
        counts.refused++;
        continue;
      }
      const { volume } = sealed;
      expect([done, volume.snapshots.list().map(({ name }) => name)]).toEqual([done, NAMES]);
      let lost = await lostOf(volume, states[NAMES.length], `the volume after: ${done.join(', ')}`);
      for (const [at, name] of NAMES.entries()) lost += await lostOfSnapshot(sealed, name, states[at]);
      counts[lost === 0 ? 'whole' : 'lost']++;
      // What is left can be deleted, and the volume keeps what it had.
      const lostBefore = await lostOf(volume, states[NAMES.length], 'the volume');
      for (const name of NAMES) await volume.deleteSnapshot(name);
      await volume.compact();
      expect(await lostOf(volume, states[NAMES.length], 'the volume without them')).toBe(lostBefore);
    } finally {
      await sealed?.stop();
      rmSync(dataDirectory, { recursive: true });
    }
  }
  console.log(JSON.stringify(counts));
  expect(counts.lost).toBeGreaterThan(0);
  expect(counts.refused).toBeGreaterThan(0);
});
