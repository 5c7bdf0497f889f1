import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ByteReader, ByteWriter } from '../../src/base/bytes.js';
import { testSeed } from '../support/seeded-random.js';

const seed = testSeed('config-bytes');

describe('byte cursors', () => {
  it('read back every number that was written, little-endian', () => {
    const max = Number.MAX_SAFE_INTEGER;
    const numbers = fc.tuple(
      fc.nat(255),
      fc.nat(65_535),
      fc.nat(2 ** 32 - 1),
      fc.maxSafeNat(),
      fc.maxSafeNat(),
    );
    fc.assert(
      fc.property(numbers, ([a, b, c, d, e]) => {
        const writer = new ByteWriter(1 + 2 + 4 + 5 + 7 + 8);
        writer
          .u8(a)
          .u16(b)
          .u32(c)
          .u40(d % 2 ** 40)
          .u56(d)
          .u64(e);
        const bytes = Buffer.from(writer.written());
        const reader = new ByteReader(bytes, 'numbers');
        expect([reader.u8(), reader.u16(), reader.u32()]).toEqual([a, b, c]);
        expect([reader.u40(), reader.u56(), reader.u64()]).toEqual([d % 2 ** 40, d, e]);
        expect(bytes.readBigUInt64LE(19)).toBe(BigInt(e));
        expect(bytes.readUIntLE(7, 5)).toBe(d % 2 ** 40);
        reader.end();
      }),
      {
        seed,
        numRuns: 1000,
        examples: [[[255, 65_535, 2 ** 32 - 1, max, max]], [[0, 0, 0, 2 ** 32, 2 ** 32]]],
      },
    );
  });

  it('never leave their buffer', () => {
    const writer = new ByteWriter(3);
    expect(() => writer.u32(1)).toThrow(RangeError);
    expect(() => writer.bytes(new Uint8Array(4))).toThrow(RangeError);
    expect(writer.offset).toBe(0);
    const inside = Buffer.alloc(16).subarray(4, 8);
    const reader = new ByteReader(inside, 'thing');
    expect(() => reader.u64()).toThrow(/thing: truncated/);
    expect(() => reader.bytes(5)).toThrow(/truncated/);
    expect(() => reader.bytes(-1)).toThrow(/truncated/);
    expect(reader.offset).toBe(0);
  });

  it('refuse numbers that are not exact or do not fit', () => {
    const big = Buffer.alloc(8, 0xff);
    expect(() => new ByteReader(big, 'x').u64()).toThrow(/2\^53/);
    expect(() => new ByteReader(big, 'x').u56()).toThrow(/2\^53/);
    for (const bad of [-1, 1.5, Number.NaN, 2 ** 53])
      expect(() => new ByteWriter(8).u64(bad)).toThrow(RangeError);
    expect(() => new ByteWriter(8).u8(256)).toThrow(RangeError);
    expect(() => new ByteWriter(8).u40(2 ** 40)).toThrow(RangeError);
  });

  it('refuse reserved bytes that are set, a wrong magic, bad UTF-8 and what is left over', () => {
    const read = (bytes: number[]) => new ByteReader(Uint8Array.from(bytes), 'x');
    expect(() => read([0, 1]).zeros(2)).toThrow(/reserved/);
    expect(() => read([65, 66]).expect('AC')).toThrow(/magic/);
    expect(() => read([0xc3, 0x28]).text(2)).toThrow(/UTF-8/);
    expect(() => read([0]).end()).toThrow(/too many/);
  });
});
