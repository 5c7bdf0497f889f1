/**
 * A passphrase-protected copy of a `local:` key, in a JSON file for people to keep. The key is wrapped (AES-256-GCM,
 * in the addon) under scrypt(passphrase); every other field is authenticated as AAD. Without such a copy, losing
 * keyring.json loses every volume under it.
 */
import { scrypt } from 'node:crypto';
import { promisify } from 'node:util';
import { z } from 'zod';
import { SealbdError } from '../../base/errors.js';
import { NAME_PATTERN, SCRYPT_MEMORY_BYTES_MAX } from '../../base/limits.js';
import type { RandomSource } from '../../base/random.js';
import { addon, type KeyHandle } from '../../native/addon.js';
import type { LocalKey } from './keyring-codec.js';

const SALT_BYTES = 32;
const SCRYPT_DEFAULT = { n: 2 ** 17, r: 8, p: 1 } as const;
const PASSPHRASE_CHARACTERS_MIN = 8;

const base64 = z.string().regex(/^[A-Za-z0-9+/]+={0,2}$/);
const fileSchema = z.strictObject({
  format: z.literal('sealbd-local-key'),
  version: z.literal(1),
  name: z.string().regex(NAME_PATTERN),
  id: z.uuid(),
  createdAt: z.string(),
  kdf: z.strictObject({
    name: z.literal('scrypt'),
    n: z
      .int()
      .min(2 ** 14)
      .refine((n) => (n & (n - 1)) === 0, 'a power of two'),
    r: z.int().min(8).max(32),
    p: z.int().min(1).max(16),
    salt: base64,
  }),
  wrapped: base64,
});
type KeyFile = z.infer<typeof fileSchema>;

export interface ExportedKey {
  readonly name: string;
  readonly id: string;
  readonly createdAt: string;
}

/** The file's text. `key` stays the caller's. */
export async function sealKeyFile(key: LocalKey, passphrase: string, random: RandomSource): Promise<string> {
  if (passphrase.length < PASSPHRASE_CHARACTERS_MIN) {
    throw new SealbdError('USAGE', `the passphrase has fewer than ${PASSPHRASE_CHARACTERS_MIN} characters`);
  }
  const salt = Buffer.from(random.fill(new Uint8Array(SALT_BYTES))).toString('base64');
  const { name, id, createdAt } = key;
  const kdf = { name: 'scrypt' as const, ...SCRYPT_DEFAULT, salt };
  const head = { format: 'sealbd-local-key' as const, version: 1 as const, name, id, createdAt, kdf };
  const kek = await deriveKek(passphrase, kdf);
  try {
    const wrapped = addon.keyWrap(kek, key.handle, authenticated(head)).toString('base64');
    return `${JSON.stringify({ ...head, wrapped }, null, 2)}\n`;
  } finally {
    addon.keyRelease(kek);
  }
}

/** The caller owns the handle. A wrong passphrase and a changed file look the same: KEY_UNAVAILABLE. */
export async function openKeyFile(
  text: string,
  passphrase: string,
): Promise<{ key: ExportedKey; handle: KeyHandle }> {
  const file = parse(text);
  const kek = await deriveKek(passphrase, file.kdf);
  try {
    const handle = addon.keyUnwrap(kek, Buffer.from(file.wrapped, 'base64'), authenticated(file));
    return { key: { name: file.name, id: file.id, createdAt: file.createdAt }, handle };
  } catch (error) {
    throw new SealbdError('KEY_UNAVAILABLE', 'wrong passphrase, or the key file was changed', {
      cause: error,
    });
  } finally {
    addon.keyRelease(kek);
  }
}

function parse(text: string): KeyFile {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new SealbdError('INTEGRITY', 'the key file is not valid JSON', { cause: error });
  }
  const parsed = fileSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0];
  throw new SealbdError('INTEGRITY', `not a version 1 key file: ${path.join('.') || 'it'}: ${message}`);
}

const scryptAsync = promisify<
  string,
  Uint8Array,
  number,
  { N: number; r: number; p: number; maxmem: number },
  Buffer
>(scrypt);

/** The derived bytes, which come in an ArrayBuffer of their own, are moved into a slot and wiped. */
async function deriveKek(passphrase: string, kdf: KeyFile['kdf']): Promise<KeyHandle> {
  const memory = 128 * kdf.r * (kdf.n + kdf.p);
  if (memory > SCRYPT_MEMORY_BYTES_MAX)
    throw new SealbdError('INTEGRITY', 'the key file asks scrypt for too much memory');
  const options = { N: kdf.n, r: kdf.r, p: kdf.p, maxmem: memory + 1024 * 1024 };
  const derived = await scryptAsync(
    passphrase.normalize('NFKC'),
    Buffer.from(kdf.salt, 'base64'),
    32,
    options,
  );
  return addon.keyImport(derived);
}

/** Fixed field order, so that the bytes do not depend on how the file was written. */
function authenticated(file: Omit<KeyFile, 'wrapped'>): Uint8Array {
  const { format, version, name, id, createdAt, kdf } = file;
  return Buffer.from(
    JSON.stringify([format, version, name, id, createdAt, kdf.name, kdf.n, kdf.r, kdf.p, kdf.salt]),
  );
}
