import { spawnSync } from 'node:child_process';
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SEGMENT_HEADER_BYTES, SLOT_BYTES } from '../../src/base/limits.js';
import { BLOCK, patternBlock, seededRandom, VolumeHarness } from '../support/volume-harness.js';

/** Enough for 8 segments of 64 slots; a read of all of it goes to the pool, one of 100 blocks does not. */
const BLOCKS = 512;
const FEW = 100;

describe('a read of blocks that lie all over the log', () => {
  let harness: VolumeHarness;

  beforeEach(async () => {
    // Fewer handles than segments: what one run opens must not be closed for another of the same read.
    harness = await VolumeHarness.create({
      tuning: { handlesMax: 4, garbageRatio: 0.99, checkpointSlots: 100_000 },
    });
    const random = seededRandom(7);
    const order = Array.from({ length: BLOCKS }, (_, lba) => ({ lba, at: random() })).sort(
      (a, b) => a.at - b.at,
    );
    for (const { lba } of order) await harness.write(lba * BLOCK, patternBlock(lba, 1));
    // All of it is in files, and no segment is open.
    await harness.reopen();
  });
  afterEach(() => harness.destroy());

  const expected = (first: number, blocks: number): Buffer =>
    Buffer.concat(Array.from({ length: blocks }, (_, i) => patternBlock(first + i, 1)));

  const read = async (first: number, blocks: number): Promise<boolean> => {
    harness.io.bytes.fill(0xee);
    const bytes = await harness.read(first * BLOCK, blocks * BLOCK);
    return expected(first, blocks).equals(bytes);
  };

  const segments = async (): Promise<string[]> =>
    (await readdir(harness.path))
      .filter((name) => name.startsWith('seg-'))
      .map((name) => join(harness.path, name));

  const flip = async (path: string, position: number): Promise<void> => {
    const file = await open(path, 'r+');
    const byte = Buffer.alloc(1);
    const at = SEGMENT_HEADER_BYTES + position * SLOT_BYTES + 77;
    await file.read(byte, 0, 1, at);
    await file.write(Buffer.from([byte[0] ^ 1]), 0, 1, at);
    await file.close();
  };

  const dropCaches = async (): Promise<void> => {
    for (const path of await segments()) {
      const { status, stderr } = spawnSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0'], {
        encoding: 'utf8',
      });
      expect(status, stderr).toBe(0);
    }
  };

  it('takes one job of the pool for many runs, and one call for few', async () => {
    expect(await read(0, FEW)).toBe(true); // Opens files and keys.
    expect(await read(0, BLOCKS)).toBe(true);
    const before = harness.cipher.stats();
    expect(await read(0, BLOCKS)).toBe(true);
    const many = harness.cipher.stats();
    expect(many.jobs - before.jobs).toBeLessThan(BLOCKS / 4);
    expect(await read(17, FEW)).toBe(true);
    expect(harness.cipher.stats().inlineJobs).toBeGreaterThan(many.inlineJobs);
  });

  it.each([FEW, BLOCKS])('gives %d blocks that are not in the page cache', async (blocks) => {
    await dropCaches();
    expect(await read(0, blocks)).toBe(true);
    await dropCaches();
    expect(await read(BLOCKS - blocks, blocks)).toBe(true);
  });

  it.each([FEW, BLOCKS])('gives holes among %d blocks as zeros', async (blocks) => {
    await harness.volume.trim(50 * BLOCK, 2 * BLOCK);
    const bytes = await harness.read(0, blocks * BLOCK);
    const wanted = expected(0, blocks).fill(0, 50 * BLOCK, 52 * BLOCK);
    expect(wanted.equals(bytes)).toBe(true);
  });

  it('answers EIO with the place of a block that was tampered with, and reads all others', async () => {
    expect(await read(0, BLOCKS)).toBe(true);
    const [path] = await segments();
    await flip(path, 31);
    const failure = await harness.read(0, BLOCKS * BLOCK).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({ code: 'EIO' });
    const at = (failure as { deviceOffset: number }).deviceOffset / BLOCK;
    // Alone it fails too, and only it.
    await expect(harness.read(at * BLOCK, BLOCK)).rejects.toMatchObject({
      code: 'EIO',
      deviceOffset: at * BLOCK,
    });
    expect(at === 0 || (await read(0, at))).toBe(true);
    expect(at === BLOCKS - 1 || (await read(at + 1, BLOCKS - at - 1))).toBe(true);
    const first = Math.max(0, at - FEW + 1);
    await expect(harness.read(first * BLOCK, FEW * BLOCK)).rejects.toMatchObject({
      deviceOffset: at * BLOCK,
    });
    await flip(path, 31);
    expect(await read(0, BLOCKS)).toBe(true);
  });

  it('gives each block as it was or as it becomes while it is overwritten', async () => {
    const [lba, src] = [200, 3 * 1024 * 1024];
    harness.io.bytes.set(patternBlock(lba, 2), src);
    const reading = harness.volume.read(harness.io, 0, 0, BLOCKS * BLOCK);
    await harness.volume.write(harness.io, src, lba * BLOCK, BLOCK);
    await Promise.all([reading, harness.volume.flush()]);
    const bytes = Buffer.from(harness.io.bytes.slice(0, BLOCKS * BLOCK));
    const version = bytes.readUInt32LE(lba * BLOCK + 4);
    expect([1, 2]).toContain(version);
    const wanted = expected(0, BLOCKS);
    wanted.set(patternBlock(lba, version), lba * BLOCK);
    expect(wanted.equals(bytes)).toBe(true);
    expect(Buffer.from(await harness.read(lba * BLOCK, BLOCK)).equals(patternBlock(lba, 2))).toBe(true);
  });
});
