/**
 * The superblock's bytes (docs/FORMAT.md): identity, size and wrapped DEKs of a volume. Pure: no file, no key
 * service. Decoding checks structure and CRC; whether the MAC holds is the caller's question, once it has a DEK.
 *
 * magic `SBDSUP1\n` · version u16 · suite u8 · flags u8 · DEK id u32 · uuid 16 · generation u64 · size u64 ·
 * created u64 · body length u32 · DEK records u32 · records · CRC32C u32 · MAC 16 under the active DEK · MAC 16 under the
 * pending DEK, where there is one
 */
import { ByteReader, ByteWriter } from '../base/bytes.js';
import type { Suite } from '../base/ciphers.js';
import {
  BLOCK_BYTES,
  DEKS_PER_VOLUME_MAX,
  KEY_STRING_BYTES_MAX,
  SUPERBLOCK_BYTES_MAX,
  VOLUME_BYTES_MAX,
} from '../base/limits.js';
import { addon, type KeyHandle, SUITE_GCM, SUITE_NONE } from '../native/addon.js';

const MAGIC = 'SBDSUP1\n';
const VERSION = 1;
const HEAD_BYTES = 64;
const RECORD_FIXED_BYTES = 36;
const CRC_BYTES = 4;
const MAC_BYTES = 16;
export const UUID_BYTES = 16;
export const CHECK_VALUE_BYTES = 16;
const MAC_LABEL = 'sealbd/v1/superblock';
const FLAG_REWRITING = 1;
const FLAG_PLAIN = 2;
const FLAG_EXPOSED = 1;
const STATES = { 1: 'active', 2: 'retired', 3: 'pending' } as const;
const STATE_CODES = { active: 1, retired: 2, pending: 3 } as const;

/**
 * pending: proven, and about to be the active one; segments, map files and roots may be under it. active: seals what is
 * new. retired: only opens what is old.
 */
export type DekState = keyof typeof STATE_CODES;

export interface DekRecord {
  /** From 1; never used twice in a volume. */
  readonly id: number;
  readonly state: DekState;
  /** It was wrapped by `local:` once: a copy of that directory still opens it. */
  readonly exposed: boolean;
  /** Unix ms. */
  readonly createdAt: number;
  readonly checkValue: Uint8Array;
  readonly keyUri: string;
  readonly resolvedKeyId: string;
  readonly keyVersion: string;
  readonly wrapped: Uint8Array;
}

export interface Superblock {
  /** Of new segments. */
  readonly suite: Suite;
  /** Seals new segments and authenticates the superblock; 0, the public key, in `none` and until a first DEK is active. */
  readonly activeDek: number;
  /** What is under other DEKs than the newest is being rewritten. */
  readonly rewriting: boolean;
  /** The volume was `none`: there may be segments in plaintext, and what is left of them is overwritten. */
  readonly plain: boolean;
  readonly uuid: Uint8Array;
  readonly generation: number;
  readonly sizeBytes: number;
  /** Unix ms. */
  readonly createdAt: number;
  readonly deks: readonly DekRecord[];
}

export interface DecodedSuperblock {
  readonly superblock: Superblock;
  /** What the MACs cover, and the MACs: under the active DEK, and under the pending one where there is one. */
  readonly covered: Uint8Array;
  readonly macs: readonly Uint8Array[];
}

/** The key of a DEK by its id; 0 is the public key. */
export type DekKey = (id: number) => KeyHandle | undefined;

/** The DEK that seals what is new: the pending one of a rotation, else the active one. Undefined in `none`. */
export function newestDek({ deks }: Superblock): DekRecord | undefined {
  return deks.find((dek) => dek.state === 'pending') ?? deks.find((dek) => dek.state === 'active');
}

/**
 * DEKs that must authenticate a superblock: the active one, and with it the pending one. So neither who came to know the
 * DEK that is about to retire, nor who knows the public key, can name a DEK that he does not have.
 */
function authenticators({ activeDek, deks }: Superblock): number[] {
  const pending = deks.find((dek) => dek.state === 'pending');
  return pending === undefined ? [activeDek] : [activeDek, pending.id];
}

export function encodeSuperblock(superblock: Superblock, keyOf: DekKey): Buffer {
  assertConsistent(superblock, (problem) => new RangeError(`superblock: ${problem}`));
  const records = superblock.deks.map(encodeRecord);
  const bodyBytes = records.reduce((sum, record) => sum + record.length, 0);
  const keys = authenticators(superblock);
  const bytes = Buffer.alloc(HEAD_BYTES + bodyBytes + CRC_BYTES + MAC_BYTES * keys.length);
  const writer = new ByteWriter(bytes);
  const flags = (superblock.rewriting ? FLAG_REWRITING : 0) | (superblock.plain ? FLAG_PLAIN : 0);
  writer.text(MAGIC).u16(VERSION).u8(superblock.suite).u8(flags).u32(superblock.activeDek);
  writer
    .bytes(superblock.uuid)
    .u64(superblock.generation)
    .u64(superblock.sizeBytes)
    .u64(superblock.createdAt);
  writer.u32(bodyBytes).u32(records.length);
  for (const record of records) writer.bytes(record);
  writer.u32(addon.crc32c(bytes.subarray(0, writer.offset), 0));
  const covered = bytes.subarray(0, writer.offset);
  for (const id of keys) {
    const key = keyOf(id);
    if (key === undefined) throw new RangeError(`superblock: DEK ${id} is not there`);
    writer.bytes(addon.keyMac(key, MAC_LABEL, superblock.uuid, covered));
  }
  return bytes;
}

/** INTEGRITY where the bytes are not a superblock of a known version, or their CRC is wrong. */
export function decodeSuperblock(bytes: Uint8Array): DecodedSuperblock {
  const reader = new ByteReader(bytes, 'superblock');
  if (bytes.length > SUPERBLOCK_BYTES_MAX) throw reader.error('too long');
  reader.expect(MAGIC);
  const version = reader.u16();
  if (version !== VERSION) throw reader.error(`version ${version}, this program knows ${VERSION}`);
  const macsAt = checkCrc(bytes);
  const suite = decodeSuite(reader);
  const flags = reader.u8();
  if ((flags & ~(FLAG_REWRITING | FLAG_PLAIN)) !== 0) throw reader.error(`unknown flags ${flags}`);
  const [rewriting, plain] = [(flags & FLAG_REWRITING) !== 0, (flags & FLAG_PLAIN) !== 0];
  const activeDek = reader.u32();
  const uuid = Uint8Array.from(reader.bytes(UUID_BYTES));
  const [generation, sizeBytes, createdAt] = [reader.u64(), reader.u64(), reader.u64()];
  const bodyBytes = reader.u32();
  const count = reader.u32();
  if (count > DEKS_PER_VOLUME_MAX) throw reader.error(`${count} DEK records`);
  const deks: DekRecord[] = [];
  for (let i = 0; i < count; i += 1) deks.push(decodeRecord(reader));
  if (reader.offset !== HEAD_BYTES + bodyBytes) throw reader.error('wrong body length');
  const superblock = { suite, activeDek, rewriting, plain, uuid, generation, sizeBytes, createdAt, deks };
  assertConsistent(superblock, (problem) => reader.error(problem));
  const macs = authenticators(superblock).map((_, i) => {
    return bytes.subarray(macsAt + i * MAC_BYTES, macsAt + (i + 1) * MAC_BYTES);
  });
  if (bytes.length !== macsAt + macs.length * MAC_BYTES) throw reader.error('wrong length');
  return { superblock, covered: bytes.subarray(0, macsAt), macs };
}

/** Whether every DEK that must authenticates it. */
export function superblockAuthenticates(
  { superblock, covered, macs }: DecodedSuperblock,
  keyOf: DekKey,
): boolean {
  return authenticators(superblock).every((id, i) => {
    const key = keyOf(id);
    return key !== undefined && addon.keyMacVerify(key, MAC_LABEL, superblock.uuid, covered, macs[i]);
  });
}

const CHECK_LABEL = 'sealbd/v1/check';
const CHECK_DATA = new Uint8Array(16);

/** Tells the right DEK from any other key: MAC of 16 zero bytes, context uuid ‖ DEK id. */
export function checkValueOf(dek: KeyHandle, uuid: Uint8Array, id: number): Uint8Array {
  return addon.keyMac(dek, CHECK_LABEL, checkContext(uuid, id), CHECK_DATA);
}

export function checkValueHolds(dek: KeyHandle, uuid: Uint8Array, record: DekRecord): boolean {
  return addon.keyMacVerify(dek, CHECK_LABEL, checkContext(uuid, record.id), CHECK_DATA, record.checkValue);
}

function checkContext(uuid: Uint8Array, id: number): Uint8Array {
  return new ByteWriter(UUID_BYTES + 4).bytes(uuid).u32(id).written();
}

function encodeRecord(record: DekRecord): Uint8Array {
  const text = new TextEncoder();
  const strings = [
    text.encode(record.keyUri),
    text.encode(record.resolvedKeyId),
    text.encode(record.keyVersion),
  ];
  const fields = [...strings, record.wrapped, new Uint8Array(0)];
  if (fields.some((field) => field.length > KEY_STRING_BYTES_MAX))
    throw new RangeError('superblock: a key string is too long');
  const length = fields.reduce((sum, field) => sum + 2 + field.length, RECORD_FIXED_BYTES);
  const writer = new ByteWriter(length);
  writer.u32(length).u32(record.id).u8(STATE_CODES[record.state]);
  writer
    .u8(record.exposed ? FLAG_EXPOSED : 0)
    .zeros(2)
    .u64(record.createdAt)
    .bytes(record.checkValue);
  for (const field of fields) writer.u16(field.length).bytes(field);
  return writer.written();
}

function decodeRecord(reader: ByteReader): DekRecord {
  const start = reader.offset;
  const length = reader.u32();
  const id = reader.u32();
  const state = STATES[reader.u8() as keyof typeof STATES];
  if (state === undefined) throw reader.error(`DEK ${id} has an unknown state`);
  const flags = reader.u8();
  if ((flags & ~FLAG_EXPOSED) !== 0) throw reader.error(`DEK ${id} has unknown flags`);
  reader.zeros(2);
  const createdAt = reader.u64();
  const checkValue = Uint8Array.from(reader.bytes(CHECK_VALUE_BYTES));
  const [keyUri, resolvedKeyId, keyVersion] = [fieldText(reader), fieldText(reader), fieldText(reader)];
  const wrapped = Uint8Array.from(reader.bytes(fieldLength(reader)));
  reader.zeros(fieldLength(reader, 0));
  if (reader.offset - start !== length) throw reader.error(`DEK record ${id} has a wrong length`);
  const exposed = (flags & FLAG_EXPOSED) !== 0;
  return { id, state, exposed, createdAt, checkValue, keyUri, resolvedKeyId, keyVersion, wrapped };
}

function fieldText(reader: ByteReader): string {
  return reader.text(fieldLength(reader));
}

function fieldLength(reader: ByteReader, max = KEY_STRING_BYTES_MAX): number {
  const length = reader.u16();
  if (length > max) throw reader.error(`a field of ${length} bytes`);
  return length;
}

function decodeSuite(reader: ByteReader): Suite {
  const suite = reader.u8();
  if (suite > SUITE_GCM) throw reader.error(`unknown suite ${suite}`);
  return suite as Suite;
}

const BODY_LENGTH_AT = 56;

/** Over all that is before it; checked first, so that an accident is not taken for an unknown field. Where the MACs begin. */
function checkCrc(bytes: Uint8Array): number {
  const reader = new ByteReader(bytes, 'superblock', BODY_LENGTH_AT);
  const at = HEAD_BYTES + reader.u32();
  if (at + CRC_BYTES + MAC_BYTES > bytes.length) throw reader.error('truncated');
  const stored = new ByteReader(bytes, 'superblock', at).u32();
  if (stored !== addon.crc32c(bytes.subarray(0, at), 0))
    throw reader.error('wrong CRC: the bytes are damaged');
  return at + CRC_BYTES;
}

function assertConsistent(superblock: Superblock, fail: (problem: string) => Error): void {
  const { suite, activeDek, deks, sizeBytes, uuid } = superblock;
  if (uuid.length !== UUID_BYTES) throw fail('a uuid has 16 bytes');
  if (sizeBytes < BLOCK_BYTES || sizeBytes > VOLUME_BYTES_MAX || sizeBytes % BLOCK_BYTES !== 0) {
    throw fail(`${sizeBytes} is no volume size`);
  }
  const ids = deks.map((dek) => dek.id);
  if (new Set(ids).size !== ids.length || ids.includes(0)) throw fail('DEK ids must differ and not be 0');
  const idsOf = (state: DekState) => deks.filter((dek) => dek.state === state).map((dek) => dek.id);
  const [active, pending] = [idsOf('active'), idsOf('pending')];
  if (suite === SUITE_NONE) {
    const blank = activeDek === 0 && deks.length === 0 && !superblock.plain && !superblock.rewriting;
    if (!blank) throw fail('a `none` volume has no DEK, and nothing to rewrite');
    return;
  }
  if (pending.length > 1) throw fail('more than one DEK is pending');
  if (activeDek === 0) {
    // The step from `none` to the first DEK.
    if (deks.length !== 1 || pending.length !== 1 || !superblock.plain) throw fail('no DEK is active');
    return;
  }
  if (active.length !== 1 || active[0] !== activeDek) throw fail('one DEK must be active, the named one');
  if (Math.max(...ids) !== (pending[0] ?? activeDek)) throw fail('the newest DEK is not the one in use');
}
