import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CIPHER_NAMES, suiteName, suiteOf } from '../../src/base/ciphers.js';
import { isSealbdError } from '../../src/base/errors.js';
import {
  checkValueHolds,
  checkValueOf,
  type DekRecord,
  decodeSuperblock,
  encodeSuperblock,
  type Superblock,
  superblockAuthenticates,
} from '../../src/keys/superblock.js';
import { addon, SUITE_CTR, SUITE_GCM, SUITE_NONE } from '../../src/native/addon.js';
import { testSeed } from '../support/seeded-random.js';

const seed = testSeed('keys-superblock');
const key = addon.keyGenerate();
const anyKey = () => key;

const bytesOf = (minLength: number, maxLength: number) => fc.uint8Array({ minLength, maxLength });
const time = fc.integer({ min: 0, max: 2 ** 48 });
const text = fc.string({ unit: 'grapheme', maxLength: 60 });
const dekArbitrary: fc.Arbitrary<DekRecord> = fc.record({
  id: fc.integer({ min: 1, max: 2 ** 32 - 1 }),
  state: fc.constant('retired' as const),
  exposed: fc.boolean(),
  createdAt: time,
  checkValue: bytesOf(16, 16),
  keyUri: text,
  resolvedKeyId: text,
  keyVersion: text,
  wrapped: bytesOf(0, 600),
});
const originsArbitrary = fc
  .uniqueArray(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { maxLength: 4 })
  .chain((ids) => {
    const lastDeks = ids.sort((a, b) => a - b);
    return fc.tuple(
      ...lastDeks.map((lastDek) => fc.record({ uuid: bytesOf(16, 16), lastDek: fc.constant(lastDek) })),
    );
  });
const superblockArbitrary: fc.Arbitrary<Superblock> = fc
  .record({
    suite: fc.constantFrom(0 as const, 1 as const, 2 as const),
    uuid: bytesOf(16, 16),
    generation: fc.maxSafeNat(),
    sizeBytes: fc.integer({ min: 1, max: 2 ** 34 }).map((blocks) => blocks * 4096),
    createdAt: time,
    rewriting: fc.boolean(),
    plain: fc.boolean(),
    sizeInRoot: fc.boolean(),
    pending: fc.boolean(),
    origins: originsArbitrary,
    deks: fc.uniqueArray(dekArbitrary, { minLength: 1, maxLength: 5, selector: (dek) => dek.id }),
  })
  .map(({ deks, pending, ...rest }): Superblock => {
    if (rest.suite === 0) return { ...rest, activeDek: 0, rewriting: false, plain: false, deks: [] };
    const [newest, ...older] = deks.sort((a, b) => b.id - a.id);
    if (!pending) return { ...rest, activeDek: newest.id, deks: [{ ...newest, state: 'active' }, ...older] };
    const next: DekRecord = { ...newest, state: 'pending' };
    const [active, ...retired] = older;
    if (active === undefined) return { ...rest, activeDek: 0, plain: true, deks: [next] };
    return { ...rest, activeDek: active.id, deks: [next, { ...active, state: 'active' }, ...retired] };
  });

const sample: Superblock = {
  suite: SUITE_GCM,
  activeDek: 2,
  rewriting: false,
  plain: false,
  sizeInRoot: false,
  uuid: Uint8Array.from({ length: 16 }, (_, i) => i),
  generation: 9,
  sizeBytes: 10 * 2 ** 30,
  createdAt: 1_770_000_000_000,
  deks: [
    {
      id: 2,
      state: 'active',
      exposed: true,
      createdAt: 1_770_000_000_000,
      checkValue: new Uint8Array(16).fill(3),
      keyUri: 'local:default',
      resolvedKeyId: 'local:default#x',
      keyVersion: '1',
      wrapped: new Uint8Array(60).fill(5),
    },
  ],
  origins: [],
};
/** `sample` under the key of 32 bytes 9, as it was written before there were origins. */
const VERSION_1 = [
  '534244535550310a0100020002000000000102030405060708090a0b0c0d0e0f09000000000000000000008002000000',
  '00a4381c9c010000870000000100000087000000020000000101000000a4381c9c010000030303030303030303030303',
  '030303030d006c6f63616c3a64656661756c740f006c6f63616c3a64656661756c7423780100313c0005050505050505',
  '050505050505050505050505050505050505050505050505050505050505050505050505050505050505050505050505',
  '050505050500002ec313abf6d7509d25b0495d9796e8f41dd4e4cd',
].join('');

describe('the superblock', () => {
  it('comes back from its bytes as it was', () => {
    fc.assert(
      fc.property(superblockArbitrary, (superblock) => {
        const bytes = encodeSuperblock(superblock, anyKey);
        const decoded = decodeSuperblock(bytes);
        expect(decoded.superblock).toEqual(superblock);
        expect(superblockAuthenticates(decoded, anyKey)).toBe(true);
        expect(encodeSuperblock(decoded.superblock, anyKey)).toEqual(bytes);
      }),
      { seed, numRuns: 300 },
    );
  });

  it('has the layout of FORMAT.md', () => {
    const bytes = encodeSuperblock(sample, anyKey);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    expect(bytes.subarray(0, 8).toString('latin1')).toBe('SBDSUP1\n');
    expect(view.getUint16(8, true)).toBe(1);
    expect(bytes[10]).toBe(2);
    expect(view.getUint32(12, true)).toBe(2);
    expect(new Uint8Array(bytes.subarray(16, 32))).toEqual(sample.uuid);
    expect(view.getBigUint64(32, true)).toBe(9n);
    expect(view.getBigUint64(40, true)).toBe(10n * 2n ** 30n);
    expect(view.getBigUint64(48, true)).toBe(1_770_000_000_000n);
    expect(view.getUint32(56, true)).toBe(bytes.length - 64 - 20);
    expect(view.getUint32(60, true)).toBe(1);
    expect(view.getUint32(64, true)).toBe(bytes.length - 64 - 20);
    expect([bytes[72], bytes[73]]).toEqual([1, 1]);
    expect(view.getUint16(100, true)).toBe('local:default'.length);
    const end = bytes.length - 20;
    expect(view.getUint32(end, true)).toBe(addon.crc32c(bytes.subarray(0, end), 0));
    const mac = addon.keyMac(key, 'sealbd/v1/superblock', sample.uuid, bytes.subarray(0, end + 4));
    expect(bytes.subarray(end + 4)).toEqual(mac);
  });

  it('without origins is what it was before there were any', () => {
    const nines = addon.keyImport(new Uint8Array(new ArrayBuffer(32)).fill(9));
    const before = Buffer.from(VERSION_1, 'hex');
    const decoded = decodeSuperblock(before);
    expect(decoded.superblock).toEqual(sample);
    expect(superblockAuthenticates(decoded, () => nines)).toBe(true);
    expect(encodeSuperblock(sample, () => nines)).toEqual(before);
    addon.keyRelease(nines);
  });

  it('names origins in version 2, behind the DEKs, and is of version 1 without any', () => {
    const [a, b] = [new Uint8Array(16).fill(0xaa), new Uint8Array(16).fill(0xbb)];
    const origins = [
      { uuid: a, lastDek: 0 },
      { uuid: b, lastDek: 1 },
    ];
    const [without, bytes] = [
      encodeSuperblock(sample, anyKey),
      encodeSuperblock({ ...sample, origins }, anyKey),
    ];
    expect([without.readUInt16LE(8), bytes.readUInt16LE(8)]).toEqual([1, 2]);
    expect(bytes.readUInt32LE(56)).toBe(without.readUInt32LE(56) + 44);
    const at = without.length - 20;
    expect(bytes.subarray(64, at)).toEqual(without.subarray(64, at));
    expect(bytes.readUInt32LE(at)).toBe(2);
    expect(bytes.subarray(at + 4, at + 44)).toEqual(
      Buffer.concat([a, Buffer.from([0, 0, 0, 0]), b, Buffer.from([1, 0, 0, 0])]),
    );
    expect(() => encodeSuperblock({ ...sample, origins: [origins[1], origins[0]] }, anyKey)).toThrow(/grow/);
  });

  it.each([
    ['without', []],
    ['with', [{ uuid: new Uint8Array(16).fill(7), lastDek: 1 }]],
  ])('%s origins is refused with any one bit flipped, anywhere', (_, origins) => {
    const bytes = encodeSuperblock({ ...sample, origins }, anyKey);
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const changed = Buffer.from(bytes);
      changed[bit >> 3] ^= 1 << (bit & 7);
      expect(accepted(changed), `bit ${bit}`).toBe(false);
    }
  });

  it('is refused at any other length', () => {
    const bytes = encodeSuperblock(sample, anyKey);
    for (let length = 0; length < bytes.length; length += 1)
      expect(accepted(bytes.subarray(0, length))).toBe(false);
    expect(accepted(Buffer.concat([bytes, new Uint8Array(1)]))).toBe(false);
  });

  it('with a repaired CRC is refused by its MAC, or by its structure', () => {
    const bytes = encodeSuperblock(sample, anyKey);
    for (let at = 0; at < bytes.length - 20; at += 1) {
      const changed = Buffer.from(bytes);
      changed[at] ^= 0x41;
      changed.writeUInt32LE(addon.crc32c(changed.subarray(0, bytes.length - 20), 0), bytes.length - 20);
      expect(accepted(changed), `byte ${at}`).toBe(false);
    }
  });

  it('never does anything but decode or refuse, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.boolean(), (noise, withHead) => {
        const bytes = withHead
          ? Buffer.concat([Buffer.from('SBDSUP1\n\x01\x00', 'latin1'), noise])
          : Buffer.from(noise);
        if (bytes.length > 84) {
          bytes.writeUInt32LE(addon.crc32c(bytes.subarray(0, bytes.length - 20), 0), bytes.length - 20);
        }
        expect(accepted(bytes)).toBe(false);
      }),
      { seed, numRuns: 2000 },
    );
  });

  it('is not written where it contradicts itself', () => {
    const [dek] = sample.deks;
    const bad: Superblock[] = [
      { ...sample, activeDek: 3 },
      { ...sample, deks: [] },
      { ...sample, deks: [dek, { ...dek, state: 'retired' }] },
      { ...sample, suite: SUITE_NONE },
      { ...sample, sizeBytes: 4097 },
      { ...sample, sizeBytes: 0 },
    ];
    for (const superblock of bad) expect(() => encodeSuperblock(superblock, anyKey)).toThrow(RangeError);
  });
});

describe('the check value', () => {
  it('holds for its key, volume and DEK id only', () => {
    const record = { ...sample.deks[0], checkValue: checkValueOf(key, sample.uuid, 2) };
    const other = addon.keyGenerate();
    expect(checkValueHolds(key, sample.uuid, record)).toBe(true);
    expect(checkValueHolds(other, sample.uuid, record)).toBe(false);
    expect(checkValueHolds(key, new Uint8Array(16), record)).toBe(false);
    expect(checkValueHolds(key, sample.uuid, { ...record, id: 3 })).toBe(false);
    addon.keyRelease(other);
  });
});

it('names of ciphers stand for the suites of the format', () => {
  expect(CIPHER_NAMES.map(suiteOf)).toEqual([SUITE_GCM, SUITE_CTR, SUITE_NONE]);
  for (const name of CIPHER_NAMES) expect(suiteName(suiteOf(name))).toBe(name);
});

function accepted(bytes: Uint8Array): boolean {
  try {
    return superblockAuthenticates(decodeSuperblock(bytes), anyKey);
  } catch (error) {
    if (isSealbdError(error, 'INTEGRITY')) return false;
    throw error;
  }
}
