/**
 * Snapshots at random points of a random history: each reads, block for block, as the volume did when it was made, whatever
 * was written, trimmed, compacted, deleted, rolled back, killed and opened again since. SEALBD_SNAPSHOT_STEPS makes the history longer.
 */
import { afterEach, describe, expect, it } from 'vitest';
import { readSnapshot } from '../support/snapshot-reader.js';
import { BLOCK, patternBlock, seededRandom, VolumeHarness } from '../support/volume-harness.js';

const SIZE = 4 * 1024 * 1024;
const STEPS = Number(process.env.SEALBD_SNAPSHOT_STEPS ?? 400);
const seed = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);
const SNAPSHOTS_AT_ONCE = 6;

describe.each([
  { suite: 2 as const, name: 'aes-256-gcm' },
  { suite: 0 as const, name: 'none' },
])(`snapshots of a volume under random requests, $name, seed ${seed}`, ({ suite }) => {
  let harness: VolumeHarness;
  afterEach(() => harness.destroy());

  it('read as the volume did when they were made', async () => {
    harness = await VolumeHarness.create({ suite, sizeBytes: SIZE });
    const model = new Uint8Array(SIZE);
    const snapshots = new Map<string, Uint8Array>();
    const random = seededRandom(seed + suite);
    const int = (max: number): number => Math.floor(random() * max);
    const check = async (name: string): Promise<void> => {
      const got = await readSnapshot(harness.volume, name, harness.io);
      expect([name, Buffer.compare(got, snapshots.get(name)!)]).toEqual([name, 0]);
    };
    let made = 0;
    for (let step = 0; step < STEPS; step++) {
      const length = (1 + int(24)) * BLOCK;
      const offset = int((SIZE - length) / BLOCK) * BLOCK;
      const what = random();
      if (what < 0.6) {
        const data = new Uint8Array(length);
        for (let at = 0; at < length; at += BLOCK) data.set(patternBlock(at, step), at);
        await harness.write(offset, data);
        model.set(data, offset);
      } else if (what < 0.68) {
        await harness.volume.trim(offset, length);
        model.fill(0, offset, offset + length);
      } else if (what < 0.76) {
        await harness.volume.zero(offset, length - 100);
        model.fill(0, offset, offset + length - 100);
      } else if (what < 0.8) await harness.volume.flush();
      else if (what < 0.84) await harness.volume.checkpoint();
      else if (what < 0.88) await harness.volume.compact();
      else if (what < 0.89) await harness.reopen();
      else if (what < 0.9) {
        // Killed after a flush: the files as they are at that instant.
        await harness.volume.flush();
        await harness.dropAfterFlush();
      } else if (what < 0.95) {
        if (snapshots.size === SNAPSHOTS_AT_ONCE) continue;
        const name = `s${made++}`;
        await harness.volume.createSnapshot(name);
        snapshots.set(name, model.slice());
      } else if (what < 0.98 && snapshots.size > 0) {
        const name = [...snapshots.keys()][int(snapshots.size)];
        await check(name);
        if (random() < 0.4) continue;
        await harness.volume.rollBack(name, 10_000);
        await harness.open();
        model.set(snapshots.get(name)!);
      } else if (snapshots.size > 0) {
        const name = [...snapshots.keys()][int(snapshots.size)];
        await harness.volume.deleteSnapshot(name);
        snapshots.delete(name);
      }
    }
    expect(made).toBeGreaterThan(STEPS / 100);
    await harness.reopen();
    expect(harness.volume.snapshots.list().map(({ name }) => name)).toEqual([...snapshots.keys()]);
    for (const name of snapshots.keys()) await check(name);
    for (let at = 0; at < SIZE; at += 1 << 20) {
      const got = await harness.read(at, 1 << 20);
      expect(Buffer.compare(got, model.subarray(at, at + (1 << 20)))).toBe(0);
    }
    const verified = await harness.volume.verify({
      signal: new AbortController().signal,
      onProgress: () => undefined,
    });
    expect([verified.lost, verified.problems]).toEqual([[], []]);
    for (const name of snapshots.keys()) await harness.volume.deleteSnapshot(name);
    await harness.volume.compact();
    expect(harness.volume.stats().snapshotBytes).toBe(0);
  });
});
