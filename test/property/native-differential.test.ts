import { createCipheriv } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { addon } from '../../src/native/addon.js';
import { KERNELS } from '../support/native-kernels.js';
import { SeededRandom, testSeed } from '../support/seeded-random.js';

const { primitives } = addon;
const SEED = testSeed('native differential');
const GCM_LENGTHS = [
  ...Array.from({ length: 321 }, (_, i) => i),
  511,
  512,
  513,
  1023,
  1040,
  4095,
  4096,
  4097,
  9000,
];

function ctrReference(key: Buffer, counter: Buffer, src: Buffer): Buffer {
  return createCipheriv('aes-256-ctr', key, counter).update(src);
}

function gcmReference(key: Buffer, iv: Buffer, aad: Buffer, src: Buffer): { cipher: Buffer; tag: Buffer } {
  const gcm = createCipheriv('aes-256-gcm', key, iv);
  gcm.setAAD(aad);
  const cipher = Buffer.concat([gcm.update(src), gcm.final()]);
  return { cipher, tag: gcm.getAuthTag() };
}

/** SP 800-38B, written for clarity over single blocks of ECB. */
function cmacReference(key: Buffer, message: Buffer): Buffer {
  const encrypt = (block: Buffer) => {
    const ecb = createCipheriv('aes-256-ecb', key, null).setAutoPadding(false);
    return Buffer.concat([ecb.update(block), ecb.final()]);
  };
  const double = (block: Buffer) => {
    const value = BigInt(`0x${block.toString('hex')}`);
    const shifted = BigInt.asUintN(128, value << 1n) ^ (value >> 127n === 1n ? 0x87n : 0n);
    return Buffer.from(shifted.toString(16).padStart(32, '0'), 'hex');
  };
  const xor = (a: Buffer, b: Buffer) => Buffer.from(a.map((byte, i) => byte ^ b[i]!));
  const k1 = double(encrypt(Buffer.alloc(16)));
  const blocks = Math.max(1, Math.ceil(message.length / 16));
  let chain = Buffer.alloc(16);
  for (let i = 0; i < blocks - 1; i++) chain = encrypt(xor(chain, message.subarray(16 * i, 16 * i + 16)));
  const rest = message.subarray(16 * (blocks - 1));
  const last =
    rest.length === 16
      ? xor(rest, k1)
      : xor(Buffer.concat([rest, Buffer.from([0x80]), Buffer.alloc(15 - rest.length)]), double(k1));
  return encrypt(xor(chain, last));
}

/** A copy at an odd address, since a Buffer of its own is aligned. */
function unaligned(bytes: Buffer, by: number): Buffer {
  const room = Buffer.alloc(bytes.length + by);
  bytes.copy(room, by);
  return room.subarray(by);
}

describe.each(KERNELS)('%s agrees with node:crypto', (kernel) => {
  test('in CTR, at odd lengths and addresses, in and out of place', () => {
    const random = new SeededRandom(SEED);
    for (let round = 0; round < 600; round++) {
      const [key, counter] = [random.bytes(32), random.bytes(16)];
      const size = round < 300 ? round : random.below(20_000);
      const src = unaligned(random.bytes(size), random.below(64));
      const expected = ctrReference(key, counter, src);
      const dst = unaligned(Buffer.alloc(size), random.below(64));
      primitives.ctr(kernel, key, counter, src, dst);
      expect(dst.equals(expected), `size ${size}`).toBe(true);
      primitives.ctr(kernel, key, counter, src, src);
      expect(src.equals(expected), `size ${size}, in place`).toBe(true);
    }
  });

  test('in CTR where the counter carries into its 33rd, 65th and 129th bit', () => {
    const random = new SeededRandom(SEED + 1);
    for (const ones of [4, 8, 16]) {
      for (let before = 0; before < 80; before++) {
        const key = random.bytes(32);
        const counter = random.bytes(16);
        counter.fill(0xff, 16 - ones);
        counter[15]! -= before;
        const src = random.bytes(16 * before + random.below(3000));
        const dst = Buffer.alloc(src.length);
        primitives.ctr(kernel, key, counter, src, dst);
        expect(dst.equals(ctrReference(key, counter, src)), `${ones} bytes of ones, ${before} before`).toBe(
          true,
        );
      }
    }
  });

  test('in GCM, at every length to 320 and around whole groups, in and out of place', () => {
    const random = new SeededRandom(SEED + 2);
    for (const size of GCM_LENGTHS) {
      const [key, iv] = [random.bytes(32), random.bytes(12)];
      const aad = random.bytes(random.below(4) === 0 ? random.below(600) : random.below(40));
      const src = unaligned(random.bytes(size), random.below(64));
      const { cipher, tag } = gcmReference(key, iv, aad, src);
      const dst = unaligned(Buffer.alloc(size), random.below(64));
      expect(primitives.gcmSeal(kernel, key, iv, aad, src, dst).equals(tag), `tag, size ${size}`).toBe(true);
      expect(dst.equals(cipher), `size ${size}`).toBe(true);
      const inPlace = Buffer.from(src);
      expect(primitives.gcmSeal(kernel, key, iv, aad, inPlace, inPlace).equals(tag)).toBe(true);
      expect(inPlace.equals(cipher), `size ${size}, in place`).toBe(true);
      expect(primitives.gcmOpen(kernel, key, iv, aad, tag, dst, dst)).toBe(true);
      expect(dst.equals(src), `size ${size}, opened in place`).toBe(true);
    }
  });

  test('in GCM, a flipped bit of ciphertext, AAD, IV or tag opens nothing and leaves zeros', () => {
    const random = new SeededRandom(SEED + 3);
    for (let round = 0; round < 300; round++) {
      const parts = [
        random.bytes(1 + random.below(5000)),
        random.bytes(1 + random.below(40)),
        random.bytes(12),
      ];
      const key = random.bytes(32);
      const { cipher, tag } = gcmReference(key, parts[2]!, parts[1]!, parts[0]!);
      const flipped = [cipher, parts[1]!, parts[2]!, tag];
      const target = flipped[round % 4]!;
      target[random.below(target.length)]! ^= 1 << random.below(8);
      const dst = Buffer.alloc(cipher.length, 0x55);
      expect(primitives.gcmOpen(kernel, key, parts[2]!, parts[1]!, tag, cipher, dst)).toBe(false);
      expect(dst.equals(Buffer.alloc(dst.length))).toBe(true);
    }
  });

  test('in CMAC and the KDF, against the slow reference', () => {
    const random = new SeededRandom(SEED + 4);
    for (let size = 0; size < 100; size++) {
      const [key, message] = [random.bytes(32), random.bytes(size)];
      expect(primitives.cmac(kernel, key, message)).toEqual(cmacReference(key, message));
      const blocks = [1, 2, 3].map((i) =>
        cmacReference(key, Buffer.concat([Buffer.from([0, 0, 0, i]), message])),
      );
      for (const bits of [8, 128, 136, 256, 384]) {
        const derived = primitives.kdf(kernel, key, message, bits);
        expect(derived).toEqual(Buffer.concat(blocks).subarray(0, bits / 8));
      }
    }
  });

  test('src and dst that overlap in part are refused', () => {
    const bytes = Buffer.alloc(100);
    const [key, counter, iv] = [Buffer.alloc(32), Buffer.alloc(16), Buffer.alloc(12)];
    const [a, b] = [bytes.subarray(0, 64), bytes.subarray(1, 65)];
    for (const [src, dst] of [
      [a, b],
      [b, a],
    ] as const) {
      const refused = expect.objectContaining({ code: 'EINVAL' });
      expect(() => primitives.ctr(kernel, key, counter, src, dst)).toThrow(refused);
      expect(() => primitives.gcmSeal(kernel, key, iv, iv, src, dst)).toThrow(refused);
      expect(() => primitives.gcmOpen(kernel, key, iv, iv, counter, src, dst)).toThrow(refused);
    }
    primitives.ctr(kernel, key, counter, bytes.subarray(0, 50), bytes.subarray(50));
  });
});
