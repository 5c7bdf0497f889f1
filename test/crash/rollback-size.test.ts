/**
 * Power lost after every durable step of a rollback to a snapshot of another size, smaller and larger, as the daemon does it: the
 * volume has the size and the content of before, or both of the snapshot, and what comes next goes on from there.
 */
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { nullLogger } from '../../src/base/log.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { ManagedVolume } from '../../src/daemon/managed-volume.js';
import { Arena } from '../../src/native/arena.js';
import { FsStore } from '../../src/store/fs-store.js';
import type { Store } from '../../src/store/store.js';
import { Volume } from '../../src/volume/volume.js';
import { keyProviders, memoryDirectory } from '../support/key-fixtures.js';
import { PowerLossStore } from '../support/power-loss-store.js';
import { SealedVolume, volumePath } from '../support/sealed-volume.js';
import { testSeed } from '../support/seeded-random.js';
import { StepStore } from '../support/step-store.js';
import { readSuperblock } from '../support/superblock-parser.js';
import { BLOCK, patternBlock, SMALL_TUNING, seededRandom } from '../support/volume-harness.js';

const SMALL = 96;
const LARGE = 160;
const tuning = { ...SMALL_TUNING, mapBytesMax: 1 << 26 };

let cipher: CipherPool;
let io: Arena;

beforeAll(() => {
  cipher = new CipherPool({ threads: 1 });
  io = new Arena(LARGE * BLOCK);
});
afterAll(async () => {
  await cipher.destroy();
  io.free();
});

/** Of each block the version that it has; so its length is the size. */
type State = readonly number[];

interface Image {
  readonly step: string;
  readonly directory: string;
}

const states = (blocks: number, version: number): number[] => Array.from({ length: blocks }, () => version);

async function managed(directory: string, given?: Store): Promise<ManagedVolume> {
  const store = given ?? (await FsStore.open(volumePath(directory)));
  const engine = { open: (options: Parameters<typeof openVolume>[0]) => openVolume(options) };
  const providers = keyProviders(directory);
  const volume = new ManagedVolume({
    ...{ name: 'v', store, engine, providers, pins: {}, clock: systemClock, log: nullLogger },
  });
  await volume.open();
  return volume;
}

function openVolume(options: Omit<Parameters<typeof Volume.open>[0], 'cipher' | 'tuning'>): Promise<Volume> {
  return Volume.open({ ...options, cipher, tuning });
}

async function write(volume: ManagedVolume, version: number, from: number, to: number): Promise<void> {
  for (let lba = from; lba < to; lba++) io.bytes.set(patternBlock(lba, version), (lba - from) * BLOCK);
  await volume.device!.write(io, 0, from * BLOCK, (to - from) * BLOCK);
  await volume.device!.flush();
}

async function stateOf(volume: ManagedVolume): Promise<State> {
  const { sizeBytes } = volume.device!;
  await volume.device!.read(io, 0, 0, sizeBytes);
  return Array.from({ length: sizeBytes / BLOCK }, (_, lba) => {
    const block = io.bytes.subarray(lba * BLOCK, (lba + 1) * BLOCK);
    const version = new Uint32Array(block.buffer, block.byteOffset, 2)[1];
    const whole = version === 0 ? new Uint8Array(BLOCK) : patternBlock(lba, version);
    expect([lba, Buffer.compare(block, whole)]).toEqual([lba, 0]);
    return version;
  });
}

/** What is found after a crash there; it lasts, and so does the size that the volume is given then. */
async function foundIn({ step, directory }: Image): Promise<State> {
  let volume = await managed(directory);
  const found = await stateOf(volume);
  expect([step, volume.superblock!.sizeBytes]).toEqual([step, found.length * BLOCK]);
  expect([step, readSuperblock(volumePath(directory)).sizeInRoot]).toEqual([step, false]);
  await volume.resize((LARGE - 8) * BLOCK);
  const grown = `${directory}-grown`;
  await cp(directory, grown, { recursive: true });
  await volume.close();
  volume = await managed(grown);
  const wanted = Array.from({ length: LARGE - 8 }, (_, lba) => found[lba] ?? 0);
  expect([step, await stateOf(volume)]).toEqual([step, wanted]);
  await volume.close();
  return found;
}

it('power lost after every durable step of a rollback leaves size and content of before, or both of the snapshot', async () => {
  const root = memoryDirectory();
  const dataDirectory = join(root, 'data');
  const random = seededRandom(testSeed('rollback-size'));
  const losing = new PowerLossStore(await FsStore.open(volumePath(dataDirectory), { create: true }));
  losing.random = random;
  const store = new StepStore(losing);
  await keyProviders(dataDirectory).open('local:default').ensure();
  const shared = { dataDirectory, cipher, tuning };
  const made = await SealedVolume.create({ ...shared, store, suite: 2, blocks: SMALL });
  await made.stop();
  const volume = await managed(dataDirectory, store);
  onTestFinished(() => volume.close());

  let steps = 0;
  const rollBack = async (name: string, before: State, after: State): Promise<void> => {
    const images: Image[] = [];
    store.onStep = async (what) => {
      const step = `${++steps}: roll back to ${name}, ${what}`;
      const directory = join(root, `image-${steps}`);
      await losing.lose(volumePath(directory), random);
      await cp(join(dataDirectory, 'keyring.json'), join(directory, 'keyring.json'));
      images.push({ step, directory });
    };
    await volume.rollBack(name);
    store.onStep = async () => undefined;
    expect(await stateOf(volume)).toEqual(after);
    expect(readSuperblock(volumePath(dataDirectory)).sizeInRoot).toBe(false);
    const kinds = new Set<string>();
    for (const image of images) {
      const found = await foundIn(image);
      expect([image.step, [before, after]]).toEqual([image.step, expect.arrayContaining([found])]);
      kinds.add(found.length === before.length ? 'before' : 'after');
    }
    // The switch is among the steps, and the superblock changes on both sides of it.
    expect([...kinds]).toEqual(['before', 'after']);
  };

  await write(volume, 1, 0, SMALL);
  await volume.device!.createSnapshot('small');
  await volume.resize(LARGE * BLOCK);
  await write(volume, 2, 32, LARGE);
  const large = [...states(32, 1), ...states(LARGE - 32, 2)];
  await volume.device!.createSnapshot('large');
  await write(volume, 3, 0, 8);
  await rollBack('small', [...states(8, 3), ...large.slice(8)], states(SMALL, 1));
  await write(volume, 4, SMALL - 8, SMALL);
  await rollBack('large', [...states(SMALL - 8, 1), ...states(8, 4)], large);
  expect(steps).toBeGreaterThan(15);
}, 120_000);

it('a rollback that is refused leaves the size to the superblock again', async () => {
  const dataDirectory = join(memoryDirectory(), 'data');
  const store = await FsStore.open(volumePath(dataDirectory), { create: true });
  await keyProviders(dataDirectory).open('local:default').ensure();
  const made = await SealedVolume.create({ dataDirectory, cipher, tuning, store, suite: 2, blocks: SMALL });
  await made.stop();
  const volume = await managed(dataDirectory);
  onTestFinished(() => volume.close());
  await write(volume, 1, 0, SMALL);
  await volume.device!.createSnapshot('small');
  await volume.resize(LARGE * BLOCK);
  const device = volume.device!;
  const update = FsStore.prototype.promoteSmall;
  let detach = (): void => undefined;
  // A client comes while the superblock is written.
  FsStore.prototype.promoteSmall = async function (...args) {
    await update.apply(this, args);
    expect(readSuperblock(volumePath(dataDirectory)).sizeInRoot).toBe(true);
    FsStore.prototype.promoteSmall = update;
    detach = device.attach(() => undefined);
  };
  await expect(volume.rollBack('small').finally(() => detach())).rejects.toMatchObject({ code: 'CONFLICT' });
  expect(readSuperblock(volumePath(dataDirectory)).sizeInRoot).toBe(false);
  expect([volume.state, volume.device!.sizeBytes]).toEqual(['serving', LARGE * BLOCK]);
  expect(await stateOf(volume)).toEqual([...states(SMALL, 1), ...states(LARGE - SMALL, 0)]);
}, 60_000);
