import { closeSync, fstatSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { addon } from '../../src/native/addon.js';
import { inChild } from '../support/native-child.js';
import { SeededRandom, testSeed } from '../support/seeded-random.js';

const SEED = testSeed('native system');

/** CRC-32C one bit at a time. */
function crcReference(bytes: Uint8Array, seed: number): number {
  let crc = ~seed;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

describe('crc32c', () => {
  test('gives the check value of the catalogue and the examples of RFC 3720', () => {
    expect(addon.crc32c(Buffer.from('123456789'), 0)).toBe(0xe3069283);
    expect(addon.crc32c(Buffer.alloc(32), 0)).toBe(0x8a9136aa);
    expect(addon.crc32c(Buffer.alloc(32, 0xff), 0)).toBe(0x62a8ab43);
    expect(addon.crc32c(Buffer.from(Array.from({ length: 32 }, (_, i) => i)), 0)).toBe(0x46dd794e);
    expect(addon.crc32c(Buffer.alloc(0), 0)).toBe(0);
  });

  test('agrees with the slow reference at every length, and continues from a seed', () => {
    const random = new SeededRandom(SEED);
    for (const size of [
      ...Array.from({ length: 100 }, (_, i) => i),
      4079,
      4080,
      4081,
      4096,
      8160,
      8165,
      20_000,
    ]) {
      const bytes = random.bytes(size);
      const cut = random.below(size + 1);
      expect(addon.crc32c(bytes, 0), `size ${size}`).toBe(crcReference(bytes, 0));
      expect(addon.crc32c(bytes.subarray(cut), addon.crc32c(bytes.subarray(0, cut), 0))).toBe(
        crcReference(bytes, 0),
      );
    }
  });
});

describe('small things', () => {
  const dir = mkdtempSync(join(tmpdir(), 'sealbd-system-'));
  afterAll(() => rmSync(dir, { recursive: true }));

  test('wipe zeroes, randomFill fills', () => {
    const bytes = Buffer.alloc(1000);
    addon.randomFill(bytes);
    expect(bytes.filter((byte) => byte !== 0).length).toBeGreaterThan(900);
    addon.wipe(bytes.subarray(1, 999));
    expect(bytes.subarray(1, 999).every((byte) => byte === 0)).toBe(true);
  });

  test('fileLock is exclusive until the file is closed', () => {
    const [a, b] = [openSync(join(dir, 'lock'), 'w'), openSync(join(dir, 'lock'), 'w')];
    expect(addon.fileLock(a)).toBe(true);
    expect(addon.fileLock(a)).toBe(true);
    expect(addon.fileLock(b)).toBe(false);
    closeSync(a);
    expect(addon.fileLock(b)).toBe(true);
    closeSync(b);
    expect(() => addon.fileLock(b)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  test('fileAllocate grows the file on disk, and rejects with the name of the errno', async () => {
    const fd = openSync(join(dir, 'space'), 'w');
    await addon.fileAllocate(fd, 1 << 20);
    expect(fstatSync(fd).size).toBe(1 << 20);
    expect(fstatSync(fd).blocks * 512).toBeGreaterThanOrEqual(1 << 20);
    closeSync(fd);
    const readOnly = openSync(join(dir, 'space'), 'r');
    await expect(addon.fileAllocate(readOnly, 1 << 20)).rejects.toMatchObject({ code: 'EBADF' });
    closeSync(readOnly);
    expect(() => addon.fileAllocate(fd, 0)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  test('processLimits raises the limits to the hard ones', () => {
    const { openFiles, lockedBytes } = addon.processLimits();
    expect(openFiles).toBeGreaterThanOrEqual(1024);
    expect(lockedBytes).toBeGreaterThan(0);
    expect(addon.processLimits()).toEqual({ openFiles, lockedBytes });
  });

  // The last allocation holds the end of malloc's heap, so that free alone gives nothing back.
  test('heapTrim gives back what was freed within malloc’s heap', async () => {
    const { code, stdout, stderr } = await inChild(`
      require('node:v8').setFlagsFromString('--expose-gc');
      const gc = require('node:vm').runInNewContext('gc');
      let buffers = Array.from({ length: 1000 }, () => Buffer.allocUnsafeSlow(100_000).fill(1));
      const last = buffers.at(-1);
      buffers = undefined;
      const freed = () => process.memoryUsage().arrayBuffers < 10_000_000;
      const look = () => {
        gc();
        if (!freed()) return setTimeout(look, 10);
        const before = process.memoryUsage.rss();
        addon.heapTrim();
        console.log(before - process.memoryUsage.rss(), last.length);
      };
      look();
    `);
    expect([code, stderr]).toEqual([0, '']);
    expect(Number(stdout.split(' ')[0])).toBeGreaterThan(50_000_000);
  });
});
