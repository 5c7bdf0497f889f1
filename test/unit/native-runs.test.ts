import { spawnSync } from 'node:child_process';
import { createCipheriv, createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BLOCK_BYTES, SEGMENT_SLOTS, SEQUENCE_MAX, SLOT_BYTES } from '../../src/base/limits.js';
import {
  addon,
  RUN_OK,
  type SegmentKeyHandle,
  SUITE_CTR,
  SUITE_GCM,
  SUITE_NONE,
} from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import { ADDON_FILE, KERNELS } from '../support/native-kernels.js';

const SUITES = [
  ['aes-256-gcm', SUITE_GCM],
  ['aes-256-ctr', SUITE_CTR],
  ['none', SUITE_NONE],
] as const;

const BLOCKS = 9;
const SRC = 0;
const DST = 1 << 20;
const BACK = 2 << 20;
const DEK = Buffer.alloc(32, 7);
const EINVAL = expect.objectContaining({ code: 'EINVAL' });

function contextOf(suite: number): Buffer {
  const context = Buffer.alloc(57);
  for (let i = 0; i < 57; i++) context[i] = i;
  context[0] = suite;
  return context;
}

/** KDF(DEK, label, context) of docs/FORMAT.md, from the addon's own tested primitives. */
function derived(label: string, suite: number): Buffer {
  const fixed = Buffer.concat([
    Buffer.from(label),
    Buffer.from([0]),
    contextOf(suite),
    Buffer.from([0, 0, 1, 0]),
  ]);
  return addon.primitives.kdf('portable', DEK, fixed, 256);
}

function be32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function le32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

describe.each(SUITES)('a run of slots under %s', (_name, suite) => {
  let arena: Arena;
  let key: SegmentKeyHandle;

  beforeAll(() => {
    arena = new Arena(4 << 20);
    const dek = addon.keyImport(Buffer.from(DEK));
    key = addon.segmentKeyDerive(suite === SUITE_NONE ? null : dek, suite, contextOf(suite));
  });
  afterAll(() => {
    addon.segmentKeyRelease(key);
    arena.free();
  });

  const bytes = (at: number, size: number) => Buffer.from(arena.bytes.buffer, at, size);
  const slot = (i: number) => bytes(DST + i * SLOT_BYTES, SLOT_BYTES);
  const block = (i: number) => bytes(SRC + i * BLOCK_BYTES, BLOCK_BYTES);
  const opened = (i: number) => bytes(BACK + i * BLOCK_BYTES, BLOCK_BYTES);
  const open = (position: number, lba: number, blocks = BLOCKS) =>
    addon.openRun(key, arena.ref(BACK), arena.ref(DST), blocks, position, lba);
  const seal = (position: number, lba: number, sequence: number, durable = -1, blocks = BLOCKS, kind = 1) =>
    addon.sealRun(key, arena.ref(DST), arena.ref(SRC), blocks, position, lba, sequence, durable, kind);

  function fill(): void {
    for (let i = 0; i < BLOCKS * BLOCK_BYTES; i++) arena.bytes[SRC + i] = (i * 2654435761) >>> 24;
    arena.bytes.fill(0x55, BACK, BACK + BLOCKS * BLOCK_BYTES);
  }

  test('opens to what was sealed, at any address and at the last positions', () => {
    fill();
    expect(seal(SEGMENT_SLOTS - BLOCKS, 2 ** 40 - BLOCKS, SEQUENCE_MAX - BLOCKS + 1)).toBe(RUN_OK);
    expect(open(SEGMENT_SLOTS - BLOCKS, 2 ** 40 - BLOCKS)).toBe(RUN_OK);
    for (let i = 0; i < BLOCKS; i++) expect(opened(i).equals(block(i))).toBe(true);
    const odd = DST + 4097;
    addon.sealRun(key, arena.ref(odd), arena.ref(SRC + 1), 3, 5, 6, 7, -1, 1);
    expect(addon.openRun(key, arena.ref(BACK + 3), arena.ref(odd), 3, 5, 6)).toBe(RUN_OK);
    expect(bytes(BACK + 3, 3 * BLOCK_BYTES).equals(bytes(SRC + 1, 3 * BLOCK_BYTES))).toBe(true);
  });

  test('carries sequence, lba, kind and lag where docs/FORMAT.md puts them', () => {
    fill();
    seal(3, 0x0102030405, 0x1002030405, 0x1002030400);
    for (let i = 0; i < BLOCKS; i++) {
      const meta = slot(i).subarray(BLOCK_BYTES, BLOCK_BYTES + 16);
      expect(meta.readUIntLE(0, 6)).toBe(0x1002030405 + i);
      expect(meta[6]).toBe(0);
      expect(meta.readUIntLE(7, 5)).toBe(0x0102030405 + i);
      expect(meta[12]).toBe(1);
      expect(meta.readUIntLE(13, 3)).toBe(5 + i);
    }
    for (const [sequence, durable, lag] of [
      [9, -1, 0xffffff],
      [9, 9, 0],
      [9, 0, 9],
      [0xfffffe, 0, 0xfffffe],
      [0xffffff, 0, 0xffffff],
      [SEQUENCE_MAX, 0, 0xffffff],
    ] as const) {
      seal(0, 0, sequence, durable, 1);
      expect(slot(0).readUIntLE(BLOCK_BYTES + 13, 3), `${sequence} after ${durable}`).toBe(lag);
    }
    seal(0, 0, 9, 3, 1, 2);
    expect(slot(0)[BLOCK_BYTES + 12]).toBe(2);
  });

  test('is the bytes that docs/FORMAT.md describes', () => {
    fill();
    const position = 77;
    seal(position, 1234, 5678, 5670, 1);
    const [cipher, meta, tag] = [
      slot(0).subarray(0, BLOCK_BYTES),
      slot(0).subarray(BLOCK_BYTES, BLOCK_BYTES + 16),
      slot(0).subarray(BLOCK_BYTES + 16),
    ];
    if (suite === SUITE_GCM) {
      const iv = Buffer.concat([Buffer.alloc(8), be32(position)]);
      const gcm = createCipheriv('aes-256-gcm', derived('sealbd/v1/segment-data', suite), iv);
      gcm.setAAD(meta);
      expect(cipher.equals(Buffer.concat([gcm.update(block(0)), gcm.final()]))).toBe(true);
      expect(tag).toEqual(gcm.getAuthTag());
    } else if (suite === SUITE_CTR) {
      const counter = Buffer.concat([Buffer.alloc(12), be32(position * 256)]);
      const ctr = createCipheriv('aes-256-ctr', derived('sealbd/v1/segment-data', suite), counter);
      expect(cipher.equals(ctr.update(block(0)))).toBe(true);
      const crc = le32(addon.crc32c(cipher, 0));
      const message = Buffer.concat([be32(position), meta, crc]);
      const mac = addon.primitives.cmac('portable', derived('sealbd/v1/segment-slot', suite), message);
      expect(tag).toEqual(Buffer.concat([crc, mac.subarray(0, 12)]));
    } else {
      expect(cipher.equals(block(0))).toBe(true);
      const salt = contextOf(suite).subarray(25);
      const crc = addon.crc32c(Buffer.concat([salt, be32(position), meta, cipher]), 0);
      expect(tag).toEqual(Buffer.concat([le32(crc), Buffer.alloc(12)]));
    }
  });

  test('at another position or for another lba gives the first index and zeros', () => {
    fill();
    seal(100, 200, 300);
    expect(open(101, 200)).toBe(0);
    for (let i = 0; i < BLOCKS; i++) expect(opened(i).equals(Buffer.alloc(BLOCK_BYTES))).toBe(true);
    expect(open(100, 201)).toBe(0);
    expect(open(100, 200)).toBe(RUN_OK);
  });

  test('of extents is not data, but scans as authentic', () => {
    fill();
    seal(0, 0, 300, -1, 1, 2);
    expect(open(0, 0, 1)).toBe(0);
    const valid = new Uint8Array(1);
    expect(addon.scanRun(key, arena.ref(BACK), arena.ref(DST), 1, 0, valid)).toBe(RUN_OK);
    expect(valid[0]).toBe(1);
  });

  test('with any one byte changed fails at that slot, and at that slot alone', () => {
    fill();
    seal(0, 0, 1);
    const target = 4;
    // Every byte of meta and tag, and a stride through the block that visits every residue modulo 64.
    const places = Array.from({ length: 32 }, (_, i) => BLOCK_BYTES + i);
    for (let at = 0; at < BLOCK_BYTES; at += 13) places.push(at);
    for (const at of places) {
      slot(target)[at]! ^= 1 << (at % 8);
      expect(open(0, 0), `byte ${at}`).toBe(target);
      slot(target)[at]! ^= 1 << (at % 8);
    }
    slot(target)[5]! ^= 1;
    slot(target + 2)[5]! ^= 1;
    expect(open(0, 0)).toBe(target);
    for (let i = 0; i < BLOCKS; i++) {
      const failed = i === target || i === target + 2;
      expect(opened(i).equals(failed ? Buffer.alloc(BLOCK_BYTES) : block(i)), `block ${i}`).toBe(true);
    }
  });

  test('with two slots exchanged fails at both', () => {
    fill();
    seal(0, 0, 1);
    const [a, b] = [Buffer.from(slot(2)), Buffer.from(slot(6))];
    slot(2).set(b);
    slot(6).set(a);
    const valid = new Uint8Array(BLOCKS);
    addon.scanRun(key, arena.ref(BACK), arena.ref(DST), BLOCKS, 0, valid);
    expect([...valid]).toEqual([1, 1, 0, 1, 1, 1, 0, 1, 1]);
    expect(opened(2).equals(Buffer.alloc(BLOCK_BYTES))).toBe(true);
    expect(opened(3).equals(block(3))).toBe(true);
  });

  test('refuses arguments out of their bounds', () => {
    const [dst, src] = [arena.ref(DST), arena.ref(SRC)];
    const sealWith = (...args: number[]) =>
      addon.sealRun(key, ...(args as [number, number, number, number, number, number, number, number]));
    expect(() => sealWith(dst, src, 0, 0, 0, 1, -1, 1)).toThrow(EINVAL);
    expect(() => sealWith(dst, src, 2, SEGMENT_SLOTS - 1, 0, 1, -1, 1)).toThrow(EINVAL);
    expect(() => sealWith(dst, src, 1, -1, 0, 1, -1, 1)).toThrow(EINVAL);
    expect(() => sealWith(dst, src, 2, 0, 2 ** 40 - 1, 1, -1, 1)).toThrow(EINVAL);
    expect(() => sealWith(dst, src, 2, 0, 0, SEQUENCE_MAX, -1, 1)).toThrow(EINVAL);
    expect(() => sealWith(dst, src, 1, 0, 0, 1.5, -1, 1)).toThrow(EINVAL);
    expect(() => sealWith(dst, src, 1, 0, 0, 5, 6, 1)).toThrow(EINVAL);
    expect(() => sealWith(dst, src, 1, 0, 0, 1, -1, 3)).toThrow(EINVAL);
    expect(() => sealWith(dst, src, 1, 0, 7, 1, -1, 2)).toThrow(EINVAL);
    expect(() => sealWith(dst, src, 2, 0, 0, 1, -1, 2)).toThrow(EINVAL);
    expect(() => sealWith(src + 4095, src, 1, 0, 0, 1, -1, 1)).toThrow(EINVAL);
    expect(() => sealWith(arena.ref((4 << 20) - SLOT_BYTES + 1), src, 1, 0, 0, 1, -1, 1)).toThrow(EINVAL);
    expect(() => sealWith(dst, 0, 1, 0, 0, 1, -1, 1)).toThrow(EINVAL);
    expect(() => sealWith(dst, Number.NaN, 1, 0, 0, 1, -1, 1)).toThrow(EINVAL);
    expect(() => sealWith(dst, arena.ref(0) + 2 ** 40, 1, 0, 0, 1, -1, 1)).toThrow(EINVAL);
    expect(() => addon.scanRun(key, dst, src, 2, 0, new Uint8Array(1))).toThrow(EINVAL);
    expect(() => addon.openRun(key, src, dst, SEGMENT_SLOTS + 1, 0, 0)).toThrow(EINVAL);
  });
});

describe('kernels', () => {
  /** Seals a fixed pattern under all suites in a process where SEALBD_CPU forces the kernel. */
  const SCRIPT = `
    const addon = require(process.argv[1]);
    const { createHash } = require('node:crypto');
    const { id, buffer } = addon.arenaCreate(4 << 20);
    const bytes = new Uint8Array(buffer);
    for (let i = 0; i < 300000; i++) bytes[i] = (i * 2654435761) >>> 24;
    const dek = addon.keyImport(Buffer.alloc(32, 7));
    const hash = createHash('sha256');
    for (const suite of [0, 1, 2]) {
      const context = Buffer.alloc(57, suite);
      const key = addon.segmentKeyDerive(suite === 0 ? null : dek, suite, context);
      addon.sealRun(key, id * 2 ** 32 + (1 << 20), id * 2 ** 32, 70, 16000, 5, 1000, 990, 1);
      hash.update(bytes.subarray(1 << 20, (1 << 20) + 70 * 4128));
      if (addon.openRun(key, id * 2 ** 32 + (2 << 20), id * 2 ** 32 + (1 << 20), 70, 16000, 5) !== -1) throw 1;
    }
    hash.update(addon.keyMac(dek, 'label', Buffer.alloc(9), bytes.subarray(0, 70001)));
    console.log(addon.cpuSelected(), hash.digest('hex'));
  `;
  const run = (cpu: string) =>
    spawnSync(process.execPath, ['-e', SCRIPT, ADDON_FILE], {
      env: { ...process.env, SEALBD_CPU: cpu },
      encoding: 'utf8',
    });

  test('SEALBD_CPU decides which one runs, and all seal byte for byte alike', () => {
    const digests = KERNELS.map((kernel) => {
      const { stdout, stderr } = run(kernel);
      const [selected, digest] = stdout.trim().split(' ');
      expect(selected, stderr).toBe(kernel);
      return digest;
    });
    expect(new Set(digests).size).toBe(1);
    expect(digests[0]).toHaveLength(createHash('sha256').digest('hex').length);
  });

  test('without SEALBD_CPU the best supported one runs', () => {
    expect(run('').stdout.split(' ')[0]).toBe(KERNELS[0]);
  });

  test('an unknown SEALBD_CPU is an error that names the choices', () => {
    const { status, stderr } = run('vaes1024');
    expect(status).not.toBe(0);
    expect(stderr).toContain(`SEALBD_CPU=vaes1024: no such kernel; choose one of: ${KERNELS.join(', ')}`);
  });
});
