/**
 * Power lost after every durable step of making, deleting, relocating and rolling back to snapshots: the volume opens, it is
 * what it was before the step or after it, and so is each snapshot; nothing is left that only a lost one held.
 * SEALBD_SNAPSHOT_CRASHES=all looks at every step, otherwise those of the root, and some of the others.
 */
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { dropOld, rotate } from '../../src/daemon/dek-rotation.js';
import { Arena } from '../../src/native/arena.js';
import { FsStore } from '../../src/store/fs-store.js';
import type { Volume } from '../../src/volume/volume.js';
import { expectNoLeakedSlots, keyProviders, memoryDirectory } from '../support/key-fixtures.js';
import { PowerLossStore } from '../support/power-loss-store.js';
import { SealedVolume, volumePath } from '../support/sealed-volume.js';
import { testSeed } from '../support/seeded-random.js';
import { readSnapshot } from '../support/snapshot-reader.js';
import { StepStore } from '../support/step-store.js';
import { BLOCK, patternBlock, SMALL_TUNING, seededRandom } from '../support/volume-harness.js';

const EVERY_STEP = process.env.SEALBD_SNAPSHOT_CRASHES === 'all';
const BLOCKS = 512;
const cipher = new CipherPool({ threads: 1 });
const io = new Arena(BLOCKS * BLOCK);
const tuning = { ...SMALL_TUNING, mapBytesMax: 1 << 28 };
const never = new AbortController().signal;
const quiet = { signal: never, onProgress: () => undefined };

afterAll(async () => {
  // The way that short requests take, without another thread, was taken.
  expect(cipher.stats().inlineJobs).toBeGreaterThan(0);
  await cipher.destroy();
  io.free();
});

/** Versions of all blocks; 0: zeros. */
type State = readonly number[];

/** What may be found: one of these states of the volume, and of each name one of these snapshots (undefined: none). */
interface Expected {
  readonly live: readonly State[];
  readonly snapshots: ReadonlyMap<string, readonly (State | undefined)[]>;
}

interface Image {
  readonly step: string;
  readonly directory: string;
  readonly expected: Expected;
}

/** A volume, and what it must hold after a crash at any moment. */
class Subject {
  readonly images: Image[] = [];
  readonly dataDirectory: string;
  readonly #root = memoryDirectory();
  readonly #random: () => number;
  #losing: PowerLossStore | undefined;
  #store: StepStore | undefined;
  #sealed: SealedVolume | undefined;
  #live: number[] = Array.from({ length: BLOCKS }, () => 0);
  /** Other states that a crash may leave, while something is under way. */
  #also: State[] = [];
  readonly #snapshots = new Map<string, (State | undefined)[]>();
  #steps = 0;
  #what = '';

  constructor(random: () => number) {
    this.#random = random;
    this.dataDirectory = join(this.#root, 'data');
  }

  async create(): Promise<void> {
    const path = volumePath(this.dataDirectory);
    this.#losing = new PowerLossStore(await FsStore.open(path, { create: true }));
    this.#losing.random = this.#random;
    this.#store = new StepStore(this.#losing);
    await keyProviders(this.dataDirectory).open('local:default').ensure();
    this.#sealed = await SealedVolume.create({
      ...this.#options,
      store: this.#store,
      suite: 2,
      blocks: BLOCKS,
    });
    this.#store.onStep = (step) => this.#onStep(step);
  }

  get #options() {
    return { dataDirectory: this.dataDirectory, cipher, tuning };
  }

  get sealed(): SealedVolume {
    return this.#sealed!;
  }

  get volume(): Volume {
    return this.sealed.volume;
  }

  async #onStep(name: string): Promise<void> {
    if (this.#what === '') return;
    const step = `${++this.#steps}: ${this.#what}, ${name}`;
    // Compaction and re-encryption have many steps of each kind.
    const often = this.#what === 'compact' || this.#what === 're-encrypt';
    const sampled =
      this.#steps % 8 === 0 || (step.includes('checkpoint') && (!often || this.#steps % 3 === 0));
    if (!EVERY_STEP && !sampled) return;
    const directory = join(this.#root, `image-${this.#steps}`);
    const snapshots = new Map([...this.#snapshots].map(([key, states]) => [key, [...states]]));
    const expected = { live: [[...this.#live], ...this.#also], snapshots };
    await this.#losing!.lose(volumePath(directory), this.#random);
    await cp(join(this.dataDirectory, 'keyring.json'), join(directory, 'keyring.json'));
    this.images.push({ step, directory, expected });
  }

  /** Random blocks get this version, durably, before anything else happens. */
  async write(version: number, count: number): Promise<void> {
    for (let i = 0; i < count; i++) {
      const lba = Math.floor(this.#random() * BLOCKS);
      await this.sealed.write(io, lba, patternBlock(lba, version));
      this.#live[lba] = version;
    }
    await this.volume.flush();
  }

  async #during(what: string, work: () => Promise<void>): Promise<void> {
    this.#what = what;
    await work();
    this.#what = '';
  }

  async createSnapshot(name: string): Promise<void> {
    const state = [...this.#live];
    this.#snapshots.set(name, [undefined, state]);
    await this.#during(`create ${name}`, () => this.volume.createSnapshot(name));
    this.#snapshots.set(name, [state]);
  }

  async deleteSnapshot(name: string): Promise<void> {
    this.#snapshots.get(name)!.push(undefined);
    await this.#during(`delete ${name}`, () => this.volume.deleteSnapshot(name));
    this.#snapshots.delete(name);
  }

  async rollBack(name: string): Promise<void> {
    const state = this.#snapshots.get(name)![0]!;
    this.#also = [state];
    await this.#during(`roll back to ${name}`, async () => {
      await this.volume.rollBack(name, 10_000);
      this.#live = [...state];
      this.#also = [];
      await this.#openAgain();
    });
  }

  async #openAgain(): Promise<void> {
    await this.sealed.stop();
    const path = volumePath(this.dataDirectory);
    this.#sealed = await SealedVolume.open(path, this.#options, this.#store);
  }

  async reencrypt(): Promise<void> {
    const shared = { providers: keyProviders(this.dataDirectory), clock: systemClock, rewrite: true };
    await this.#during('rotate', () =>
      rotate(this.sealed.header, this.volume, { ...shared, keyUri: 'local:default' }),
    );
    await this.#during('re-encrypt', async () => {
      await this.volume.rewrite(quiet);
      await dropOld(this.sealed.header, this.volume);
    });
  }

  compact(): Promise<void> {
    return this.#during('compact', () => this.volume.compact());
  }

  async stop(): Promise<void> {
    await this.sealed.stop();
    this.images.push({
      step: 'the end',
      directory: this.dataDirectory,
      expected: { live: [this.#live], snapshots: this.#snapshots },
    });
  }
}

function versionsIn(bytes: Uint8Array): State {
  return Array.from({ length: BLOCKS }, (_, lba) => {
    const block = bytes.subarray(lba * BLOCK, (lba + 1) * BLOCK);
    const version = new Uint32Array(block.buffer, block.byteOffset, 2)[1];
    const whole = version === 0 ? new Uint8Array(BLOCK) : patternBlock(lba, version);
    if (Buffer.compare(block, whole) !== 0) throw new Error(`block ${lba} is torn`);
    return version;
  });
}

async function liveOf(volume: Volume): Promise<State> {
  await volume.read(io, 0, 0, BLOCKS * BLOCK);
  return versionsIn(io.bytes.slice(0, BLOCKS * BLOCK));
}

async function check({ step, directory, expected }: Image): Promise<void> {
  const path = volumePath(directory);
  const options = { dataDirectory: directory, cipher, tuning };
  const sealed = await SealedVolume.open(path, options).catch((error) => {
    throw new Error(`after step ${step}: ${error.message}`, { cause: error });
  });
  const { volume, header } = sealed;
  try {
    const expectAll = async (): Promise<string[]> => {
      expect([step, expected.live]).toEqual([step, expect.arrayContaining([await liveOf(volume)])]);
      const present = volume.snapshots.list().map(({ name }) => name);
      expect([step, [...expected.snapshots.keys()]]).toEqual([step, expect.arrayContaining(present)]);
      for (const [name, states] of expected.snapshots) {
        const found = present.includes(name) ? versionsIn(await readSnapshot(volume, name, io)) : undefined;
        expect([step, name, states]).toEqual([step, name, expect.arrayContaining([found])]);
      }
      return present;
    };
    const present = await expectAll();
    // It can go on from there.
    if (header.superblock.rewriting) await volume.rewrite(quiet);
    await dropOld(header, volume);
    await volume.compact();
    expect(await expectAll()).toEqual(present);
    const { lost, problems } = await volume.verify(quiet);
    expect([step, lost, problems]).toEqual([step, [], []]);
    for (const name of present) await volume.deleteSnapshot(name);
    await volume.compact();
    // Four thirds of what is mapped, and the segments at work.
    const { storedBytes, snapshotBytes } = volume.stats();
    expect([step, snapshotBytes]).toEqual([step, 0]);
    expect(storedBytes).toBeLessThan((BLOCKS * (4 / 3) + 5 * 64) * 4128);
  } finally {
    await sealed.stop();
  }
}

it('power lost after every durable step leaves the state before it or after it, of the volume and of each snapshot', async () => {
  expectNoLeakedSlots();
  const subject = new Subject(seededRandom(testSeed('snapshots')));
  await subject.create();
  await subject.write(1, 400);
  await subject.createSnapshot('a');
  await subject.write(2, 300);
  await subject.createSnapshot('b');
  await subject.write(3, 300);
  await subject.compact();
  await subject.deleteSnapshot('a');
  await subject.rollBack('b');
  await subject.write(4, 100);
  await subject.createSnapshot('c');
  await subject.write(5, 200);
  await subject.reencrypt();
  await subject.rollBack('c');
  await subject.write(6, 50);
  await subject.deleteSnapshot('c');
  await subject.stop();
  for (const image of subject.images) await check(image);
  console.log(`${subject.images.length} images`);
  expect(subject.images.length).toBeGreaterThan(40);
}, 600_000);
