/**
 * A checkpoint costs what changed, not what the volume holds: bytes, which are the same on every machine. How long a
 * large volume takes to open is measured by bench/volume/open-time.ts.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { BLOCK, seededRandom, VolumeHarness } from '../support/volume-harness.js';

const SIZE_BYTES = 16 * 2 ** 30;
const BLOCKS = SIZE_BYTES / BLOCK;
const SEED = 7;
/** Header, table entries of the segments that grew, and the MACs. */
const FIXED_BYTES = 1024;
/** gap, run and slot as varints: 2 + 1 + 5 at most where blocks are far apart, and older small runs merged in. */
const BYTES_PER_BLOCK_MAX = 14;

let harness: VolumeHarness | undefined;
afterEach(async () => {
  await harness?.destroy();
  harness = undefined;
});

/** A volume with so many single blocks at random places, all of them in a checkpoint. */
async function volumeWith(blocks: number, random: () => number): Promise<VolumeHarness> {
  const made = await VolumeHarness.create({
    sizeBytes: SIZE_BYTES,
    tuning: {
      segmentSlots: 4096,
      checkpointSlots: 2 ** 17,
      checkpointIntervalMs: 2 ** 30,
      garbageRatio: 1,
      poolSealBytes: Number.POSITIVE_INFINITY,
    },
  });
  await write(made, blocks, random);
  await made.volume.checkpoint();
  return made;
}

async function write(to: VolumeHarness, blocks: number, random: () => number): Promise<void> {
  for (let i = 0; i < blocks; i++) {
    await to.volume.write(to.io, 0, Math.floor(random() * BLOCKS) * BLOCK, BLOCK);
  }
}

/** Bytes of the checkpoint after `blocks` more changes. */
async function checkpointBytes(of: VolumeHarness, blocks: number, random: () => number): Promise<number> {
  const before = of.volume.stats().checkpointBytes;
  await write(of, blocks, random);
  await of.volume.checkpoint();
  return of.volume.stats().checkpointBytes - before;
}

describe('a checkpoint', () => {
  it('of k changed blocks writes bytes in proportion to k', async () => {
    const random = seededRandom(SEED);
    harness = await volumeWith(40_000, random);
    for (const k of [1, 10, 100, 1000, 4000]) {
      expect(await checkpointBytes(harness, k, random), `k = ${k}`).toBeLessThan(
        FIXED_BYTES + k * BYTES_PER_BLOCK_MAX,
      );
    }
  });

  it('of one changed block writes the same whether the map is small or large', async () => {
    const written: number[] = [];
    for (const blocks of [2000, 40_000]) {
      const random = seededRandom(SEED);
      harness = await volumeWith(blocks, random);
      written.push(await checkpointBytes(harness, 1, random));
      await harness.destroy();
      harness = undefined;
    }
    expect(Math.abs(written[0] - written[1])).toBeLessThan(32);
  });

  it('in which nothing changed writes no map file', async () => {
    const random = seededRandom(SEED);
    harness = await volumeWith(500, random);
    await harness.reopen();
    const { checkpointBytes: before } = harness.volume.stats();
    await harness.volume.checkpoint();
    expect(harness.volume.stats().checkpointBytes).toBe(before);
  });

  it('many small ones together write a small multiple of what changed', async () => {
    const random = seededRandom(SEED);
    harness = await volumeWith(40_000, random);
    const before = harness.volume.stats().checkpointBytes;
    for (let i = 0; i < 64; i++) await checkpointBytes(harness, 50, random);
    const bytes = harness.volume.stats().checkpointBytes - before;
    expect(bytes).toBeLessThan(64 * (FIXED_BYTES + 50 * BYTES_PER_BLOCK_MAX * 4));
  });
});
