import { spawnSync } from 'node:child_process';
import {
  closeSync,
  fsyncSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BLOCK_BYTES, SEGMENT_HEADER_BYTES, SLOT_BYTES } from '../../src/base/limits.js';
import {
  addon,
  type KeyHandle,
  RUN_ERRNO_BASE,
  RUN_OK,
  RUN_REVOKED,
  RUN_WOULD_BLOCK,
  type SegmentKeyHandle,
  SUITE_GCM,
} from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';

const EBADF = 9;
/** File system types of statfs(2). */
const TMPFS = 0x01021994;
const RAMFS = 0x858458f6;
/** More than two pieces of what the addon reads at once. */
const BLOCKS = 150;
const SRC = 0;
const SLOTS = 1 << 20;
const BACK = 2 << 20;

describe('readRun', () => {
  const dir = mkdtempSync(join(tmpdir(), 'sealbd-read-run-'));
  const path = join(dir, 'segment');
  let fd: number;
  let arena: Arena;
  let dek: KeyHandle;
  let key: SegmentKeyHandle;

  beforeAll(() => {
    arena = new Arena(4 << 20);
    addon.randomFill(arena.bytes.subarray(SRC, BLOCKS * BLOCK_BYTES));
    dek = addon.keyGenerate();
    const context = Buffer.alloc(57, SUITE_GCM);
    key = addon.segmentKeyDerive(dek, SUITE_GCM, context);
    addon.sealRun(key, arena.ref(SLOTS), arena.ref(SRC), BLOCKS, 0, 1000, 1, -1, 1);
    fd = openSync(path, 'w+');
    writeSync(fd, arena.bytes, SLOTS, BLOCKS * SLOT_BYTES, SEGMENT_HEADER_BYTES);
  });
  afterAll(() => {
    closeSync(fd);
    rmSync(dir, { recursive: true });
    arena.free();
  });

  const read = (from: number, blocks: number, noWait: boolean, file = fd) =>
    addon.readRun(
      key,
      file,
      SEGMENT_HEADER_BYTES + from * SLOT_BYTES,
      blocks,
      arena.ref(BACK),
      from,
      1000 + from,
      noWait,
    );

  test.each([false, true])('gives the blocks of a file in the page cache, noWait = %s', (noWait) => {
    for (const [from, blocks] of [
      [0, BLOCKS],
      [3, 64],
      [17, 65],
      [BLOCKS - 1, 1],
    ] as const) {
      arena.bytes.fill(0, BACK);
      expect(read(from, blocks, noWait)).toBe(RUN_OK);
      const expected = Buffer.from(arena.bytes.buffer, SRC + from * BLOCK_BYTES, blocks * BLOCK_BYTES);
      expect(expected.equals(arena.bytes.subarray(BACK, BACK + blocks * BLOCK_BYTES))).toBe(true);
    }
  });

  test('names the first slot that fails, counted over all pieces', () => {
    const at = SEGMENT_HEADER_BYTES + 130 * SLOT_BYTES + 9;
    const [good, bad] = [Buffer.from([arena.bytes[SLOTS + 130 * SLOT_BYTES + 9]!]), Buffer.alloc(1)];
    bad[0] = good[0]! ^ 0xff;
    writeSync(fd, bad, 0, 1, at);
    expect(read(0, BLOCKS, false)).toBe(130);
    expect(read(100, 40, false)).toBe(30);
    writeSync(fd, good, 0, 1, at);
    expect(read(0, BLOCKS, false)).toBe(RUN_OK);
  });

  /** Puts the slots from `from` on into the file. */
  const write = (from: number, blocks: number) =>
    writeSync(
      fd,
      arena.bytes,
      SLOTS + from * SLOT_BYTES,
      blocks * SLOT_BYTES,
      SEGMENT_HEADER_BYTES + from * SLOT_BYTES,
    );

  test.each([0, 1, 40, 64, 127, 128, BLOCKS - 1])(
    'names slot %d where the file ends inside it, opens those before and zeroes the rest',
    (whole) => {
      arena.bytes.fill(0xee, BACK);
      ftruncateSync(fd, SEGMENT_HEADER_BYTES + (whole + 1) * SLOT_BYTES - 1);
      expect(read(0, BLOCKS, false)).toBe(whole);
      const opened = arena.bytes.subarray(BACK, BACK + whole * BLOCK_BYTES);
      expect(Buffer.from(arena.bytes.buffer, SRC, whole * BLOCK_BYTES).equals(opened)).toBe(true);
      const rest = arena.bytes.subarray(BACK + whole * BLOCK_BYTES, BACK + BLOCKS * BLOCK_BYTES);
      expect(rest.every((byte) => byte === 0)).toBe(true);
      write(whole, BLOCKS - whole);
      expect(read(0, BLOCKS, false)).toBe(RUN_OK);
    },
  );

  test('names a slot that fails before the one in which the file ends', () => {
    ftruncateSync(fd, SEGMENT_HEADER_BYTES + 140 * SLOT_BYTES);
    writeSync(fd, Buffer.alloc(SLOT_BYTES, 1), 0, SLOT_BYTES, SEGMENT_HEADER_BYTES + 20 * SLOT_BYTES);
    expect(read(0, BLOCKS, false)).toBe(20);
    expect(read(21, BLOCKS - 21, false)).toBe(140 - 21);
    write(20, 1);
    write(140, BLOCKS - 140);
    expect(read(0, BLOCKS, false)).toBe(RUN_OK);
  });

  test('with noWait would block at the end of the file: some kernels say 0 before it', () => {
    ftruncateSync(fd, SEGMENT_HEADER_BYTES + BLOCKS * SLOT_BYTES - 1);
    expect(read(0, BLOCKS, true)).toBe(RUN_WOULD_BLOCK);
    expect(read(0, BLOCKS, false)).toBe(BLOCKS - 1);
    write(BLOCKS - 1, 1);
    expect(read(0, BLOCKS, true)).toBe(RUN_OK);
  });

  test('with noWait would block where the file is not in the page cache, and reads it without', () => {
    // dd asks the kernel to drop the file's pages; a file system in memory has nothing to drop them to.
    fsyncSync(fd);
    const dropped = spawnSync('dd', [`if=${path}`, 'iflag=nocache', 'count=0'], { encoding: 'utf8' });
    expect(dropped.status, dropped.stderr).toBe(0);
    const inMemory = [TMPFS, RAMFS].includes(statfsSync(dir).type);
    expect(read(0, BLOCKS, true)).toBe(inMemory ? RUN_OK : RUN_WOULD_BLOCK);
    expect(read(0, BLOCKS, false)).toBe(RUN_OK);
    expect(read(0, BLOCKS, true)).toBe(RUN_OK);
  });

  test('returns the errno of a read that fails at once', () => {
    const closed = openSync(path, 'r');
    closeSync(closed);
    expect(read(0, 1, false, closed)).toBe(RUN_ERRNO_BASE - EBADF);
  });

  describe('readRuns', () => {
    const outcome = new Float64Array(1);
    /** Runs of the file, each to its own place behind BACK. */
    const runsOf = (...runs: readonly (readonly [from: number, blocks: number])[]): Float64Array =>
      Float64Array.from(
        runs.flatMap(([from, blocks]) => [
          ...[key, fd, SEGMENT_HEADER_BYTES + from * SLOT_BYTES, blocks],
          ...[arena.ref(BACK + from * BLOCK_BYTES), from, 1000 + from],
        ]),
      );
    const holds = (from: number, blocks: number): boolean => {
      const [start, bytes] = [from * BLOCK_BYTES, blocks * BLOCK_BYTES];
      const wanted = Buffer.from(arena.bytes.buffer, SRC + start, bytes);
      return wanted.equals(arena.bytes.subarray(BACK + start, BACK + start + bytes));
    };

    test('reads runs in order, from the first that is asked for on', () => {
      arena.bytes.fill(0, BACK);
      expect(addon.readRuns(runsOf([9, 1], [100, 3], [20, 70]), 1, 3, true, outcome)).toBe(3);
      expect([holds(9, 1), holds(100, 3), holds(20, 70)]).toEqual([false, true, true]);
      expect(addon.readRuns(runsOf([9, 1]), 1, 1, true, outcome)).toBe(1);
    });

    test('stops at the first run that fails and says how', () => {
      arena.bytes.fill(0, BACK);
      write(0, BLOCKS);
      writeSync(fd, Buffer.alloc(SLOT_BYTES, 1), 0, SLOT_BYTES, SEGMENT_HEADER_BYTES + 42 * SLOT_BYTES);
      expect(addon.readRuns(runsOf([3, 2], [40, 4], [80, 1]), 0, 3, false, outcome)).toBe(1);
      expect(outcome[0]).toBe(2);
      expect([holds(3, 2), holds(40, 2), holds(42, 1), holds(43, 1), holds(80, 1)]).toEqual([
        ...[true, true, false, true, false],
      ]);
      write(42, 1);
    });

    test.each([
      ['a count', undefined, 2],
      ['a descriptor', 1, -1],
      ['a place in dst', 4, 2 ** 52],
      ['a position', 5, 20_000],
      ['a fraction of a block', 3, 1.5],
      ['no number', 6, Number.NaN],
    ] as const)('refuses %s that is out of range', (_what, field, value) => {
      const runs = runsOf([0, 1]);
      if (typeof field === 'number') runs[field] = value;
      const count = typeof field === 'number' ? 1 : value;
      expect(() => addon.readRuns(runs, 0, count, false, outcome)).toThrow(/must/);
    });

    test('refuses a key that is none', () => {
      const runs = runsOf([0, 1]);
      runs[0] = 2 ** 50;
      expect(() => addon.readRuns(runs, 0, 1, false, outcome)).toThrow(/names no key/);
    });
  });

  test('after the key was revoked gives RUN_REVOKED and leaves nothing of this run in dst', () => {
    arena.bytes.fill(0, BACK);
    addon.keyRevoke(dek);
    expect(read(0, BLOCKS, false)).toBe(RUN_REVOKED);
    expect(arena.bytes.subarray(BACK, BACK + BLOCKS * BLOCK_BYTES).every((byte) => byte === 0)).toBe(true);
    addon.segmentKeyRelease(key);
    addon.keyRelease(dek);
  });
});
