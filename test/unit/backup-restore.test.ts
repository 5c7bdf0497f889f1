import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { Arena } from '../../src/native/arena.js';
import type { SuiteId } from '../../src/segment/format.js';
import { FsStore } from '../../src/store/fs-store.js';
import { type BackupScene, makeBackup, restoreTo, verify } from '../support/backups.js';
import { expectNoLeakedSlots, memoryDirectory } from '../support/key-fixtures.js';
import { SealedVolume, volumePath } from '../support/sealed-volume.js';
import { BLOCK, patternBlock, SMALL_TUNING, seededRandom } from '../support/volume-harness.js';

const BLOCKS = 2048;
const SEED = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);
const ZEROS = new Uint8Array(BLOCK);

const cipher = new CipherPool({ threads: 1 });
const io = new Arena(1 << 20);
afterAll(async () => {
  await cipher.destroy();
  io.free();
});

interface Subject {
  readonly scene: BackupScene;
  readonly volume: SealedVolume;
  readonly store: FsStore;
  /** Version of each block; 0: unmapped. */
  readonly versions: Uint32Array;
  readonly random: () => number;
}

async function subject(suite: SuiteId, seed = SEED): Promise<Subject> {
  const dataDirectory = memoryDirectory();
  const path = volumePath(dataDirectory);
  mkdirSync(path, { recursive: true });
  const store = await FsStore.open(path);
  const options = { dataDirectory, cipher, tuning: SMALL_TUNING, store, suite, blocks: BLOCKS };
  const volume = await SealedVolume.create(options);
  return {
    scene: { dataDirectory, cipher },
    ...{ volume, store, versions: new Uint32Array(BLOCKS), random: seededRandom(seed) },
  };
}

let version = 0;

/** Writes and trims at random places; the versions say what is where afterwards. */
async function change({ volume, versions, random }: Subject, steps: number, within = BLOCKS): Promise<void> {
  for (let i = 0; i < steps; i++) {
    const lba = Math.floor(random() * within);
    const count = Math.min(within - lba, 1 + Math.floor(random() * 24));
    if (random() < 0.15) {
      await volume.volume.trim(lba * BLOCK, count * BLOCK);
      versions.fill(0, lba, lba + count);
      continue;
    }
    version++;
    await volume.write(io, lba, ...Array.from({ length: count }, (_, j) => patternBlock(lba + j, version)));
    versions.fill(version, lba, lba + count);
  }
}

async function expectContent(volume: SealedVolume, versions: Uint32Array): Promise<void> {
  for (let lba = 0; lba < BLOCKS; lba++) {
    const wanted = versions[lba] === 0 ? ZEROS : patternBlock(lba, versions[lba]);
    const found = await volume.read(io, lba);
    if (Buffer.compare(found, wanted) !== 0) throw new Error(`block ${lba} is not version ${versions[lba]}`);
  }
}

function open({ scene }: Subject, path: string): Promise<SealedVolume> {
  return SealedVolume.open(path, { ...scene, tuning: SMALL_TUNING });
}

function directory({ scene }: Subject, name: string): string {
  return join(scene.dataDirectory, name);
}

describe.each([
  { suite: 2 as const, name: 'aes-256-gcm' },
  { suite: 1 as const, name: 'aes-256-ctr' },
  { suite: 0 as const, name: 'none' },
])('a full backup, $name', ({ suite }) => {
  it(`restores to the volume as it was, which goes on by itself, seed ${SEED}`, async () => {
    expectNoLeakedSlots();
    const it = await subject(suite);
    await change(it, 150);
    await it.volume.volume.compact();
    await change(it, 50);
    const dest = directory(it, 'full');
    const then = it.versions.slice();
    const manifest = await makeBackup(it.scene, it.volume, it.store, dest);
    await change(it, 100);
    expect(await verify(it.scene, dest)).toEqual({ slots: manifest.slots, problems: [] });
    expect(readdirSync(dest)).not.toContain('incomplete');

    const restored = await restoreTo(it.scene, dest, 'w');
    expect(restored.lost).toEqual([]);
    expect(restored.blocks).toBe(then.filter((each) => each !== 0).length);
    const copy = await open(it, restored.path);
    await expectContent(copy, then);
    expect(
      await copy.volume.verify({ signal: new AbortController().signal, onProgress: () => undefined }),
    ).toEqual({
      checkedBlocks: restored.blocks,
      lost: [],
      problems: [],
    });

    // Both go on, each for itself.
    const other: Subject = { ...it, volume: copy, versions: then };
    await change(other, 80);
    await change(it, 80);
    await copy.volume.compact();
    await expectContent(copy, then);
    await expectContent(it.volume, it.versions);
    await copy.stop();
    const again = await open(it, restored.path);
    await expectContent(again, then);
    await again.stop();
    await it.volume.stop();
  });
});
