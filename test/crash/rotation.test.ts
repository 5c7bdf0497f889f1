/**
 * Power lost after every durable step of a rotation with re-encryption, and of the conversion of a `none` volume: the
 * volume opens, every flushed block is there, the rotation happened or it did not, and it can be ended; then nothing
 * depends on the old key. SEALBD_ROTATION_STEPS=all looks at every step, otherwise those of the superblock and the root, and some of the others.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { dropOld, rotate } from '../../src/daemon/dek-rotation.js';
import { newestCopy, readHeaderCopies } from '../../src/keys/header-copies.js';
import { addon } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import type { SuiteId } from '../../src/segment/format.js';
import { FsStore } from '../../src/store/fs-store.js';
import { expectNoLeakedSlots, keyProviders, memoryDirectory } from '../support/key-fixtures.js';
import { PowerLossStore } from '../support/power-loss-store.js';
import { SealedVolume, volumePath } from '../support/sealed-volume.js';
import { testSeed } from '../support/seeded-random.js';
import { StepStore } from '../support/step-store.js';
import { BLOCK, patternBlock, SMALL_TUNING, seededRandom } from '../support/volume-harness.js';

const EVERY_STEP = process.env.SEALBD_ROTATION_STEPS === 'all';
const BLOCKS = 2048;
const DEK_ID_AT = 12;
const MARKER = Buffer.from('this block was in plaintext once');
const cipher = new CipherPool({ threads: 1 });
const io = new Arena(1 << 20);
const tuning = { ...SMALL_TUNING, mapBytesMax: 1 << 28 };
const never = new AbortController().signal;
const quiet = { signal: never, onProgress: () => undefined };

afterAll(async () => {
  // The way that short requests take, without another thread, was taken.
  expect(cipher.stats().inlineJobs).toBeGreaterThan(0);
  await cipher.destroy();
  io.free();
});

interface Image {
  readonly step: string;
  readonly directory: string;
  /** Versions of blocks that an answered flush covers. */
  readonly flushed: ReadonlyMap<number, number>;
}

function content(lba: number, version: number): Uint8Array {
  const block = patternBlock(lba, version);
  block.set(MARKER, 64);
  return block;
}

/** Rotates a volume to the end under writes, and keeps what a power loss after each step could leave. */
async function rotateUnderWrites(from: SuiteId, to: SuiteId, random: () => number): Promise<Image[]> {
  const root = memoryDirectory();
  const dataDirectory = join(root, 'data');
  const path = volumePath(dataDirectory);
  const providers = keyProviders(dataDirectory);
  const losing = new PowerLossStore(await FsStore.open(path, { create: true }));
  losing.random = random;
  const store = new StepStore(losing);
  await providers.open('local:default').ensure();
  const options = { dataDirectory, cipher, tuning, store, blocks: BLOCKS };
  const sealed = await SealedVolume.create({ ...options, suite: from });
  const { header, volume } = sealed;
  const flushed = new Map<number, number>();
  let version = 1;
  for (let lba = 0; lba < 600; lba++) await sealed.write(io, (lba * 7) % 1024, content((lba * 7) % 1024, 1));
  await volume.flush();
  for (let lba = 0; lba < 600; lba++) flushed.set((lba * 7) % 1024, 1);
  await volume.checkpoint();

  const images: Image[] = [];
  let rewriting = false;
  let steps = 0;
  store.onStep = async (name) => {
    steps += 1;
    const step = `${steps}: ${name}`;
    const sampled =
      steps % (rewriting ? 12 : 3) === 0 || step.includes('superblock') || step.includes('checkpoint');
    if (!EVERY_STEP && !sampled) return;
    const directory = join(root, `image-${steps}`);
    const covered = new Map(flushed);
    await losing.lose(volumePath(directory), random);
    await cp(join(dataDirectory, 'keyring.json'), join(directory, 'keyring.json'));
    images.push({ step, directory, flushed: covered });
  };
  let ended = false;
  const writing = (async () => {
    while (!ended) {
      version += 1;
      const lbas = Array.from({ length: 8 }, () => Math.floor(random() * BLOCKS));
      for (const lba of lbas) {
        flushed.delete(lba); // Old or new until the flush is answered.
        await sealed.write(io, lba, content(lba, version));
      }
      await volume.flush();
      for (const lba of lbas) flushed.set(lba, version);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  const shared = { providers, clock: systemClock, keyUri: 'local:default', rewrite: true };
  await rotate(header, volume, from === to ? shared : { ...shared, suite: to });
  rewriting = true;
  await volume.rewrite(quiet);
  const old = await dropOld(header, volume);
  expect(old).toEqual(from === 0 ? [] : [1]);
  ended = true;
  await writing;
  store.onStep = async () => undefined;
  await sealed.stop();
  images.push({ step: 'the end', directory: dataDirectory, flushed: new Map(flushed) });
  return images;
}

async function expectData(sealed: SealedVolume, flushed: ReadonlyMap<number, number>): Promise<void> {
  for (let lba = 0; lba < BLOCKS; lba++) {
    const block = await sealed.read(io, lba);
    const found = new Uint32Array(block.buffer, block.byteOffset, 2)[1];
    const wanted = flushed.get(lba);
    if (wanted !== undefined) expect([lba, found]).toEqual([lba, wanted]);
    const whole = found === 0 ? new Uint8Array(BLOCK) : content(lba, found);
    expect(Buffer.compare(block, whole)).toBe(0);
  }
}

/** Every file that names a DEK names this one, and no file holds any of the needles. */
function expectNothingUnderOthers(path: string, dekId: number, needles: readonly Uint8Array[]): void {
  for (const name of readdirSync(path)) {
    const bytes = readFileSync(join(path, name));
    for (const needle of needles) expect([name, bytes.includes(Buffer.from(needle))]).toEqual([name, false]);
    if (!/^(seg|map|checkpoint|superblock|spare|reserve)/.test(name) || name === 'reserve-small') continue;
    if (bytes.length < DEK_ID_AT + 4) continue;
    const found = bytes.readUInt32LE(DEK_ID_AT);
    const mayBeBlank = name.startsWith('spare') || name.startsWith('reserve');
    expect(mayBeBlank && found === 0 ? dekId : found, name).toBe(dekId);
  }
}

describe.each([
  { from: 2, to: 2, what: 'of an aes-256-gcm volume' },
  { from: 1, to: 1, what: 'of an aes-256-ctr volume' },
  { from: 0, to: 2, what: 'that converts a none volume' },
] as const)('power lost after every durable step of a rotation $what', ({ from, to }) => {
  it('leaves a volume that opens with every flushed block, and a rotation that can be ended', async () => {
    expectNoLeakedSlots();
    const random = seededRandom(testSeed(`rotation ${from}`));
    const images = await rotateUnderWrites(from, to, random);
    let rolledForward = 0;
    for (const { step, directory, flushed } of images) {
      const path = volumePath(directory);
      const before = newestCopy(await readHeaderCopies(await FsStore.open(path))).decoded.superblock;
      const sealed = await SealedVolume.open(path, { dataDirectory: directory, cipher, tuning }).catch(
        (error) => {
          throw new Error(`after step ${step}: ${error.message}`, { cause: error });
        },
      );
      const { header, volume } = sealed;
      try {
        await expectData(sealed, flushed);
        // It rolls forward from the first superblock that names the new DEK; before, it never happened.
        const { deks, activeDek, rewriting } = header.superblock;
        const began =
          before.deks.length !== (from === 0 ? 0 : 1) ||
          before.activeDek > 1 ||
          (from === 0 && before.activeDek === 1);
        expect(header.pending, step).toBeUndefined();
        expect(activeDek, step).toBe((from === 0 ? 0 : 1) + (began ? 1 : 0));
        if (!began) continue;
        rolledForward += 1;
        const retired = deks.filter((dek) => dek.state === 'retired').map((dek) => dek.wrapped);
        if (rewriting) {
          await volume.rewrite(quiet);
          await dropOld(header, volume);
        }
        await expectData(sealed, flushed);
        expect((await volume.verify(quiet)).problems).toEqual([]);
        await volume.flush();
        await sealed.stop();
        expectNothingUnderOthers(path, activeDek, from === 0 ? [MARKER] : retired);
      } finally {
        await sealed.stop();
        header.revoke();
      }
    }
    console.log(`${images.length} images, ${rolledForward} of them rolled forward`);
    expect(rolledForward).toBeGreaterThan(10);
  }, 600_000);
});

it('a rotation leaves the key slots of the old DEK wiped', async () => {
  const dataDirectory = memoryDirectory();
  const providers = keyProviders(dataDirectory);
  await providers.open('local:default').ensure();
  const store = await FsStore.open(volumePath(dataDirectory), { create: true });
  const sealed = await SealedVolume.create({
    dataDirectory,
    cipher,
    tuning,
    store,
    suite: 2,
    blocks: BLOCKS,
  });
  await sealed.write(io, 3, content(3, 1));
  const old = sealed.header.deks.get(1)!;
  addon.keyRetain(old);
  await rotate(sealed.header, sealed.volume, {
    ...{ providers, clock: systemClock, keyUri: 'local:default', rewrite: true },
  });
  expect(addon.keyIsRevoked(old)).toBe(false);
  await sealed.volume.rewrite(quiet);
  await dropOld(sealed.header, sealed.volume);
  expect(addon.keyIsRevoked(old)).toBe(true);
  addon.keyRelease(old);
  expect(Buffer.compare(await sealed.read(io, 3), content(3, 1))).toBe(0);
  await sealed.stop();
});
