/**
 * A volume as the version before snapshots left it when it was killed: open, with a tail behind its checkpoint. The fixture is a
 * gzipped JSON object, base64 of each file by its path in the data directory (its key protects nothing else).
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { expect, it, onTestFinished } from 'vitest';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { Arena } from '../../src/native/arena.js';
import { memoryDirectory } from '../support/key-fixtures.js';
import { SealedVolume, volumePath } from '../support/sealed-volume.js';
import { readSnapshot } from '../support/snapshot-reader.js';
import { BLOCK, patternBlock, SMALL_TUNING } from '../support/volume-harness.js';

const FIXTURE = fileURLToPath(new URL('../fixtures/volume-v1.json.gz', import.meta.url));
const BLOCKS = 64;
const VERSION_AT = 8;

function unpack(): string {
  const directory = memoryDirectory();
  const files = JSON.parse(gunzipSync(readFileSync(FIXTURE)).toString('utf8')) as Record<string, string>;
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(directory, name)), { recursive: true, mode: 0o700 });
    writeFileSync(join(directory, name), Buffer.from(content, 'base64'), { mode: 0o600 });
  }
  return directory;
}

/** Blocks 0 to 5 were written, a checkpoint made, blocks 4 to 9 written, and flushed. */
const versionOf = (lba: number): number => (lba < 4 ? 1 : lba < 10 ? 2 : 0);

function wanted(): Uint8Array {
  const bytes = new Uint8Array(BLOCKS * BLOCK);
  for (let lba = 0; versionOf(lba) > 0; lba++) bytes.set(patternBlock(lba, versionOf(lba)), lba * BLOCK);
  return bytes;
}

it('a volume of before there were snapshots opens, gets some, and has a root of version 1 without them', async () => {
  const dataDirectory = unpack();
  const cipher = new CipherPool({ threads: 1 });
  const io = new Arena(BLOCKS * BLOCK);
  onTestFinished(async () => {
    await cipher.destroy();
    io.free();
  });
  const options = {
    dataDirectory,
    cipher,
    tuning: { ...SMALL_TUNING, mapBytesMax: 1 << 28, segmentSlots: 8 },
  };
  const path = volumePath(dataDirectory);
  const rootVersions = () =>
    ['checkpoint', 'checkpoint.bak'].map((name) => readFileSync(join(path, name)).readUInt16LE(VERSION_AT));
  const expectContent = async ({ volume }: SealedVolume): Promise<void> => {
    await volume.read(io, 0, 0, BLOCKS * BLOCK);
    expect(Buffer.compare(io.bytes, wanted())).toBe(0);
  };

  expect(rootVersions()).toEqual([1, 1]);
  const first = await SealedVolume.open(path, options);
  await expectContent(first);
  await first.stop();
  expect(rootVersions()).toEqual([1, 1]);
  const second = await SealedVolume.open(path, options);
  await second.volume.createSnapshot('a');
  await second.write(io, 0, patternBlock(0, 3));
  await second.stop();
  expect(rootVersions()).toEqual([2, 2]);
  const third = await SealedVolume.open(path, options);
  expect(Buffer.compare(await readSnapshot(third.volume, 'a', io), wanted())).toBe(0);
  await third.volume.rollBack('a', 10_000);
  await third.stop();
  const last = await SealedVolume.open(path, options);
  await expectContent(last);
  await last.volume.deleteSnapshot('a');
  await last.stop();
  expect(rootVersions()).toEqual([1, 1]);
});
