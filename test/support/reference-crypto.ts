/**
 * The cryptography of docs/FORMAT.md once more, on node:crypto alone and nothing of src: what the addon does must be
 * what the document says. Slow, and meant for reading.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto';

const BLOCK = 16;

function aesBlock(key: Uint8Array, block: Uint8Array): Buffer {
  const cipher = createCipheriv('aes-256-ecb', key, null).setAutoPadding(false);
  return Buffer.concat([cipher.update(block), cipher.final()]);
}

/** Doubling in GF(2^128), SP 800-38B. */
function doubled(block: Uint8Array): Buffer {
  const out = Buffer.alloc(BLOCK);
  for (let i = 0; i < BLOCK; i++) out[i] = (block[i] << 1) | ((block[i + 1] ?? 0) >> 7);
  if ((block[0] & 0x80) !== 0) out[BLOCK - 1] ^= 0x87;
  return out;
}

/** SP 800-38B with AES-256. */
export function cmac(key: Uint8Array, message: Uint8Array): Buffer {
  const k1 = doubled(aesBlock(key, Buffer.alloc(BLOCK)));
  const whole = message.length > 0 && message.length % BLOCK === 0;
  const length = whole ? message.length : (Math.floor(message.length / BLOCK) + 1) * BLOCK;
  const padded = Buffer.alloc(length);
  padded.set(message);
  if (!whole) padded[message.length] = 0x80;
  const mask = whole ? k1 : doubled(k1);
  for (let i = 0; i < BLOCK; i++) padded[length - BLOCK + i] ^= mask[i];
  const cipher = createCipheriv('aes-256-cbc', key, Buffer.alloc(BLOCK)).setAutoPadding(false);
  return Buffer.concat([cipher.update(padded), cipher.final()]).subarray(length - BLOCK);
}

function be32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** KDF(key, label, context): 256 bits. */
export function deriveKey(key: Uint8Array, label: string, context: Uint8Array): Buffer {
  const rest = [Buffer.from(label), Buffer.alloc(1), context, be32(256)];
  return Buffer.concat([1, 2].map((i) => cmac(key, Buffer.concat([be32(i), ...rest]))));
}

/** The plaintext, or undefined where the tag is wrong. */
export function gcmOpen(
  key: Uint8Array,
  iv: Uint8Array,
  aad: Uint8Array,
  ciphertext: Uint8Array,
  tag: Uint8Array,
): Buffer | undefined {
  const decipher = createDecipheriv('aes-256-gcm', key, iv);
  decipher.setAAD(aad).setAuthTag(tag);
  const plain = decipher.update(ciphertext);
  try {
    decipher.final();
  } catch {
    return undefined;
  }
  return plain;
}

/** What `local:` does: nonce ‖ ciphertext ‖ tag under KDF(kek, wrap), bound to be32(DEK id) ‖ uuid ‖ 1, since what it wraps is exposed. */
export function unwrapDek(kek: Uint8Array, wrapped: Uint8Array, dekId: number, uuid: Uint8Array): Buffer {
  const key = deriveKey(kek, 'sealbd/v1/wrap', Buffer.alloc(0));
  const aad = Buffer.concat([be32(dekId), uuid, Buffer.from([1])]);
  const dek = gcmOpen(key, wrapped.subarray(0, 12), aad, wrapped.subarray(12, 44), wrapped.subarray(44));
  if (dek === undefined) throw new Error('the reference does not unwrap this DEK');
  return dek;
}

const CRC32C_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let i = 0; i < 8; i++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC32C_TABLE[(crc ^ byte) & 0xff];
  return (crc ^ 0xffffffff) >>> 0;
}

/** FIPS 197: the 15 round keys of AES-256, in the order of their bytes. */
export function roundKeys(key: Uint8Array): Buffer {
  const words: number[] = [];
  for (let i = 0; i < 8; i++) words.push(Buffer.from(key).readUInt32BE(4 * i));
  let rcon = 1;
  for (let i = 8; i < 60; i++) {
    let word = words[i - 1];
    if (i % 8 === 0) {
      word = subWord(((word << 8) | (word >>> 24)) >>> 0) ^ (rcon << 24);
      rcon <<= 1;
    } else if (i % 8 === 4) word = subWord(word);
    words.push((words[i - 8] ^ word) >>> 0);
  }
  return Buffer.concat(words.map(be32));
}

function subWord(word: number): number {
  return be32(word).reduce((out, byte) => ((out << 8) | SBOX[byte]) >>> 0, 0);
}

/** Inverse in GF(2^8), then the affine map. */
const SBOX = Uint8Array.from({ length: 256 }, (_, value) => {
  let inverse = 0;
  for (let other = 1; other < 256; other++) if (gfMultiply(value, other) === 1) inverse = other;
  let out = 0x63;
  for (let turn = 0; turn < 5; turn++) out ^= ((inverse << turn) | (inverse >> (8 - turn))) & 0xff;
  return out;
});

function gfMultiply(a: number, b: number): number {
  let product = 0;
  for (let i = 0; i < 8; i++) {
    if (((b >> i) & 1) === 0) continue;
    let shifted = a;
    for (let j = 0; j < i; j++) shifted = (shifted << 1) ^ ((shifted & 0x80) !== 0 ? 0x11b : 0);
    product ^= shifted;
  }
  return product;
}
