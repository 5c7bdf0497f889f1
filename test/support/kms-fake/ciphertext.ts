/**
 * The ciphertext blobs of the fake, opaque to clients as those of AWS are.
 *
 *   byte   0  version, 1
 *          1  key id, 16
 *         17  key material id, 32
 *         49  IV, 12
 *         61  tag, 16
 *         77  AES-256-GCM ciphertext, as long as the plaintext
 *
 * Authenticated with it: the bytes 0-48 and the encryption context, its pairs sorted, each string behind its length.
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';

const VERSION = 1;
const KEY_ID_AT = 1;
const MATERIAL_AT = 17;
const IV_AT = 49;
const TAG_AT = 61;
const DATA_AT = 77;

export type EncryptionContext = Readonly<Record<string, string>>;

/** One generation of a key's secret. */
export interface KeyMaterial {
  /** 64 hexadecimal digits */
  readonly id: string;
  readonly secret: Buffer;
}

export function newMaterial(): KeyMaterial {
  const secret = randomBytes(32);
  return { id: createHash('sha256').update('key material id').update(secret).digest('hex'), secret };
}

export interface Ciphertext {
  /** The uuid. */
  readonly keyId: string;
  readonly materialId: string;
  readonly blob: Buffer;
}

export function seal(
  keyId: string,
  material: KeyMaterial,
  plaintext: Buffer,
  context: EncryptionContext,
): Buffer {
  const head = Buffer.concat([
    Buffer.from([VERSION]),
    Buffer.from(keyId.replaceAll('-', ''), 'hex'),
    Buffer.from(material.id, 'hex'),
  ]);
  const iv = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', material.secret, iv);
  cipher.setAAD(Buffer.concat([head, contextBytes(context)]));
  const data = Buffer.concat([cipher.update(plaintext), cipher.final()]);
  return Buffer.concat([head, iv, cipher.getAuthTag(), data]);
}

/** Undefined where these are no bytes of the fake's. */
export function parse(blob: Buffer): Ciphertext | undefined {
  if (blob.length <= DATA_AT || blob[0] !== VERSION) return undefined;
  const hex = blob.toString('hex', KEY_ID_AT, MATERIAL_AT);
  const keyId = hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  return { keyId, materialId: blob.toString('hex', MATERIAL_AT, IV_AT), blob };
}

/** The plaintext; undefined where bytes, material or context are not those that were sealed. */
export function open(
  { blob }: Ciphertext,
  material: KeyMaterial,
  context: EncryptionContext,
): Buffer | undefined {
  const decipher = createDecipheriv('aes-256-gcm', material.secret, blob.subarray(IV_AT, TAG_AT));
  decipher.setAAD(Buffer.concat([blob.subarray(0, IV_AT), contextBytes(context)]));
  decipher.setAuthTag(blob.subarray(TAG_AT, DATA_AT));
  const plaintext = decipher.update(blob.subarray(DATA_AT));
  try {
    decipher.final();
  } catch {
    // All that final() can fail at is the tag.
    return undefined;
  }
  return plaintext;
}

function contextBytes(context: EncryptionContext): Buffer {
  const parts: Buffer[] = [];
  for (const name of Object.keys(context).sort()) {
    for (const text of [name, context[name]]) {
      const bytes = Buffer.from(text);
      const length = Buffer.alloc(4);
      length.writeUInt32BE(bytes.length);
      parts.push(length, bytes);
    }
  }
  return Buffer.concat(parts);
}
