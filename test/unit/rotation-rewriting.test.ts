/** The rewriting of what is under older DEKs, where something is in its way, and what it may cost. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { describe, expect, it, vi } from 'vitest';
import { SegmentTable } from '../../src/volume/segment-table.js';
import { ioError } from '../support/hooked-store.js';
import { RotatingVolume, rejection } from '../support/rotating-volume.js';
import { BLOCK } from '../support/volume-harness.js';

const HEADER_BYTES = 4096;
const SEGMENT_SLOTS = 64;

/** Ten segments under DEK 1, and a rotation to DEK 2. */
async function rotated(tuning = {}): Promise<RotatingVolume> {
  const subject = await RotatingVolume.create({ tuning });
  await subject.fill(1, 0, 10 * SEGMENT_SLOTS);
  await subject.volume.checkpoint();
  await subject.rotate(true);
  return subject;
}

function damage(subject: RotatingVolume, name: string): void {
  const bytes = readFileSync(subject.file(name));
  bytes[HEADER_BYTES + 10] ^= 1;
  writeFileSync(subject.file(name), bytes);
}

const oldSegments = ({ volume }: RotatingVolume): number => volume.segmentsByDek().get(1)?.segments ?? 0;

describe('one segment that can not be rewritten', () => {
  it('for a read error keeps no other from it, and is rewritten once it can be read', async () => {
    const subject = await rotated();
    const [bad] = subject.segments;
    subject.store.onRead = async (name, position) => {
      if (name.startsWith(bad) && position >= HEADER_BYTES) throw ioError('read');
    };
    const error = await rejection(subject.rewrite());
    expect([error.code, error.message]).toEqual(['INTEGRITY', expect.stringContaining('64 blocks')]);
    expect(oldSegments(subject)).toBe(1);
    expect(await subject.dropOld()).toEqual([]);
    expect(subject.header.superblock.rewriting).toBe(true);
    subject.store.onRead = async () => undefined;
    await subject.expectData();
    // What was found damaged is looked at again when the volume is opened.
    await subject.stop();
    await subject.open();
    await subject.rewrite();
    expect(await subject.dropOld()).toEqual([1]);
    await subject.expectData();
    subject.expectAllUnder(2);
  });

  it('for a file that is gone keeps no other from it', async () => {
    const subject = await rotated({ handlesMax: 4 });
    const [bad] = subject.segments;
    rmSync(subject.file(bad));
    expect((await rejection(subject.rewrite())).code).toBe('INTEGRITY');
    expect(oldSegments(subject)).toBe(1);
    for (let lba = 0; lba < SEGMENT_SLOTS; lba++) subject.forget(lba);
    await subject.expectData();
  });

  it('keeps its own DEK alone, however often the others are changed', async () => {
    const subject = await RotatingVolume.create();
    await subject.fill(1, 0, 200);
    await subject.volume.checkpoint();
    damage(subject, subject.segments[0]);
    const dropped: number[] = [];
    for (let round = 0; round < 3; round++) {
      await subject.rotate(true);
      expect((await rejection(subject.rewrite())).code).toBe('INTEGRITY');
      dropped.push(...(await subject.dropOld()));
    }
    expect(subject.deks).toEqual(['1 retired', '4 active']);
    expect(dropped).toEqual([2, 3]);
    // Overwritten, it is in nobody's way any more.
    await subject.fill(2, 0, SEGMENT_SLOTS);
    await subject.rewrite();
    expect(await subject.dropOld()).toEqual([1]);
    await subject.expectData();
    subject.expectAllUnder(4);
  });
});

describe('the wish to rewrite', () => {
  it('is kept where a DEK is pending from a rotation without it', async () => {
    const subject = await RotatingVolume.create();
    subject.store.onReplace = async (name) => {
      if (name === 'superblock.bak') throw ioError('write');
    };
    await expect(subject.rotate(false)).rejects.toThrow('injected');
    subject.store.onReplace = async () => undefined;
    await subject.rotate(true);
    expect([subject.deks, subject.header.superblock.rewriting]).toEqual([['1 retired', '2 active'], true]);
  });

  it('is kept through a rotation without it', async () => {
    const subject = await RotatingVolume.create({ suite: 0 });
    await subject.fill(1, 0, 40);
    await subject.convert();
    await subject.rotate(false);
    expect(subject.header.superblock).toMatchObject({ rewriting: true, plain: true });
    await subject.rewrite();
    await subject.dropOld();
    expect(subject.header.superblock).toMatchObject({ rewriting: false, plain: false });
    expect([subject.deks, subject.plainFiles]).toEqual([['2 active'], []]);
    await subject.expectData();
  });
});

it('a rewriting of many small segments makes few checkpoints, and counts all of them a few times only', async () => {
  const segmentSlots = 16;
  const segments = 600;
  const subject = await RotatingVolume.create({
    ...{ blocks: segments * segmentSlots, tuning: { segmentSlots, checkpointSlots: 1_000_000 } },
  });
  await subject.fill(1, 0, segments * segmentSlots);
  await subject.volume.checkpoint();
  await subject.rotate(true);
  const before = subject.volume.stats();
  expect(before.segments).toBeGreaterThan(segments);
  const walks = vi.spyOn(SegmentTable.prototype, 'all');
  let reports = 0;
  const started = performance.now();
  try {
    await subject.rewrite(() => {
      reports++;
    });
    const elapsedMs = performance.now() - started;
    // A checkpoint for each large segment's worth: all of it is less.
    expect(subject.volume.stats().checkpoints - before.checkpoints).toBeLessThanOrEqual(3);
    expect(walks.mock.calls.length).toBeLessThan(50 + elapsedMs / 250);
    expect(reports).toBeLessThanOrEqual(2 + elapsedMs / 250);
  } finally {
    walks.mockRestore();
  }
  expect(subject.volume.segmentsByDek().has(1)).toBe(false);
  await subject.expectData();
});

it('what was read of segments in plaintext is in memory that was given back, and so wiped', async () => {
  const subject = await RotatingVolume.create({ suite: 0 });
  await subject.fill(1, 0, 4 * SEGMENT_SLOTS);
  await subject.volume.checkpoint();
  await subject.convert();
  const buffers: Uint8Array[] = [];
  subject.store.onRead = async (name, _position, bytes) => {
    if (name.startsWith('seg-') && bytes.length > BLOCK) buffers.push(bytes);
  };
  await subject.rewrite();
  expect(buffers.length).toBeGreaterThan(0);
  for (const bytes of buffers) expect(bytes.length).toBe(0);
  await subject.dropOld();
  await subject.expectData();
});
