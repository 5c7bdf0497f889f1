/**
 * Every form in which a volume's keys could lie around: what a scan of memory or files looks for. Keys are derived anew
 * from what is on the disk, by the reference.
 */
import { createCipheriv } from 'node:crypto';
import { open, parse } from './kms-fake/ciphertext.js';
import type { KmsFake } from './kms-fake/kms-fake.js';
import { formsOf, type Needle } from './memory-scan.js';
import { deriveKey, roundKeys } from './reference-crypto.js';
import { type ParsedDek, readSuperblock } from './superblock-parser.js';
import { parseSegment, readFiles } from './volume-parser.js';

const DEK_ID_AT = 12;
const ROUNDS = 15;

/** The DEK as the key service gives it out. */
export function dekFromKms(kms: KmsFake, uuid: Buffer, { id, exposed, resolvedKeyId, wrapped }: ParsedDek) {
  const blob = parse(wrapped);
  const material = blob && kms.key(resolvedKeyId).material(blob.materialId);
  const context = {
    'sealbd:volume': uuid.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5'),
    'sealbd:dek': String(id),
    'sealbd:exposed': String(exposed),
  };
  const dek = material && open(blob, material, context);
  if (dek?.length !== 32) throw new Error(`the fake does not unwrap DEK ${id}`);
  return dek;
}

/** Remembers every key that it was ever shown: those of segments come and go. */
export class KeyNeedles {
  readonly #deks = new Map<string, Needle[]>();
  readonly #dekBytes = new Map<number, Buffer>();
  readonly #segments = new Map<string, Needle[]>();

  /** DEKs and their kin: what may be in locked slots while the volume is open. */
  get deks(): Needle[] {
    return [...this.#deks.values()].flat();
  }

  get segments(): Needle[] {
    return [...this.#segments.values()].flat();
  }

  get all(): Needle[] {
    return [...this.deks, ...this.segments];
  }

  addDek(id: number, dek: Buffer, uuid: Buffer): void {
    this.#dekBytes.set(id, dek);
    const dekId = Buffer.alloc(4);
    dekId.writeUInt32LE(id);
    this.#deks.set(`DEK ${id}`, [
      ...formsOf(`DEK ${id}`, dek),
      ...alignedBase64(`DEK ${id}`, dek),
      ...expanded(`DEK ${id}`, dek),
      ...working(`superblock key of DEK ${id}`, deriveKey(dek, 'sealbd/v1/superblock', uuid)),
      ...working(`checkpoint key of DEK ${id}`, deriveKey(dek, 'sealbd/v1/checkpoint', uuid)),
      ...working(`check key of DEK ${id}`, deriveKey(dek, 'sealbd/v1/check', Buffer.concat([uuid, dekId]))),
    ]);
  }

  /** DEKs of the volume that are under a key of the fake's. */
  addDeksOf(kms: KmsFake, volumePath: string): void {
    const { uuid, deks } = readSuperblock(volumePath);
    for (const dek of deks) this.addDek(dek.id, dekFromKms(kms, uuid, dek), uuid);
  }

  /** Working keys of the segments that are in the volume's directory now, under the DEKs that were added. */
  addSegmentsOf(volumePath: string): void {
    for (const bytes of readFiles(volumePath).values()) {
      const parsed = parseSegment(bytes);
      const dek = parsed === undefined ? undefined : this.#dekBytes.get(bytes.readUInt32LE(DEK_ID_AT));
      if (parsed === undefined || dek === undefined) continue;
      const context = parsed.context.toString('hex');
      if (this.#segments.has(context)) continue;
      const name = `segment ${parsed.id} of DEK ${bytes.readUInt32LE(DEK_ID_AT)}`;
      this.#segments.set(context, [
        ...working(`data key of ${name}`, deriveKey(dek, 'sealbd/v1/segment-data', parsed.context)),
        ...working(`metadata key of ${name}`, deriveKey(dek, 'sealbd/v1/segment-meta', parsed.context)),
      ]);
    }
  }
}

/** Raw, as text, and expanded. */
function working(name: string, key: Buffer): Needle[] {
  return [...formsOf(name, key).slice(0, 4), ...expanded(name, key)];
}

/** Round keys, one needle each, and the GHASH key. The first two round keys are the key itself. */
function expanded(name: string, key: Buffer): Needle[] {
  const rounds = roundKeys(key);
  const needles = ghashForms(key).map((bytes) => ({ name: `GHASH key of ${name}`, bytes }));
  for (let i = 2; i < ROUNDS; i++)
    needles.push({ name: `round key ${i} of ${name}`, bytes: rounds.subarray(16 * i, 16 * i + 16) });
  return needles;
}

const ONES = (1n << 128n) - 1n;
/** x^128 + x^127 + x^126 + x^121 + 1, bits reversed. */
const POLYNOMIAL = 0xc2000000000000000000000000000001n;

/** H = AES_K(0) as SP 800-38D has it, byte-reversed, and times x as kernels with carry-less multiplication want it. */
function ghashForms(key: Buffer): Buffer[] {
  const h = createCipheriv('aes-256-ecb', key, null).setAutoPadding(false).update(Buffer.alloc(16));
  const reversed = Buffer.from(h).reverse();
  const value = BigInt(`0x${h.toString('hex')}`);
  const shifted = ((value << 1n) & ONES) ^ (value >> 127n === 1n ? POLYNOMIAL : 0n);
  const timesX = Buffer.from(shifted.toString(16).padStart(32, '0'), 'hex').reverse();
  return [h, reversed, timesX];
}

/** What base64 makes of the key in the middle of something longer, whatever its start falls on. */
function alignedBase64(name: string, secret: Buffer): Needle[] {
  return [0, 1, 2].map((offset) => {
    const text = Buffer.concat([Buffer.alloc(offset), secret]).toString('base64');
    // Characters that hold bits of the neighbours as well are left out.
    const first = offset === 0 ? 0 : offset + 1;
    const last = Math.floor(((offset + secret.length) * 8) / 6);
    return { name: `${name}, base64 at ${offset}`, bytes: Buffer.from(text.slice(first, last)) };
  });
}
