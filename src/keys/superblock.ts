/**
 * The superblock's bytes (docs/FORMAT.md): identity, size and wrapped DEKs of a volume. Pure: no file, no key
 * service. Decoding checks structure and CRC; whether the MAC holds is the caller's question, once it has a DEK.
 *
 * magic `SBDSUP1\n` · version u16 · suite u8 · flags u8 · DEK id u32 · uuid 16 · generation u64 · size u64 ·
 * created u64 · body length u32 · DEK records u32 · records · in version 2 origins · CRC32C u32 · MAC 16 under the active
 * DEK · MAC 16 under the pending DEK, where there is one
 */
import { ByteReader, ByteWriter } from '../base/bytes.js';
import type { Suite } from '../base/ciphers.js';
import { SealbdError } from '../base/errors.js';
import { BLOCK_BYTES, DEKS_PER_VOLUME_MAX, SUPERBLOCK_BYTES_MAX, VOLUME_BYTES_MAX } from '../base/limits.js';
import { addon, type KeyHandle, SUITE_GCM, SUITE_NONE } from '../native/addon.js';
import { type DekRecord, type DekState, decodeRecord, encodeRecord } from './dek-record.js';
import { decodeOrigins, encodeOrigins, type Origin, originProblem, UUID_BYTES } from './origins.js';

export type { DekRecord, DekState };
export { UUID_BYTES };

const MAGIC = 'SBDSUP1\n';
/** The second has origins. What needs none stays readable for programs that know the first only. */
const VERSIONS = { plain: 1, withOrigins: 2 } as const;
const HEAD_BYTES = 64;
const CRC_BYTES = 4;
const MAC_BYTES = 16;
const MAC_LABEL = 'sealbd/v1/superblock';
const FLAG_REWRITING = 1;
const FLAG_PLAIN = 2;
const FLAG_SIZE_IN_ROOT = 4;
const FLAGS = FLAG_REWRITING | FLAG_PLAIN | FLAG_SIZE_IN_ROOT;

export interface Superblock {
  /** Of new segments. */
  readonly suite: Suite;
  /** Seals new segments and authenticates the superblock; 0, the public key, in `none` and until a first DEK is active. */
  readonly activeDek: number;
  /** What is under other DEKs than the newest is being rewritten. */
  readonly rewriting: boolean;
  /** The volume was `none`: there may be segments in plaintext, and what is left of them is overwritten. */
  readonly plain: boolean;
  /** The size that counts is that of the checkpoint root: a rollback to a snapshot of another size is under way. */
  readonly sizeInRoot: boolean;
  readonly uuid: Uint8Array;
  readonly generation: number;
  readonly sizeBytes: number;
  /** Unix ms. */
  readonly createdAt: number;
  readonly deks: readonly DekRecord[];
  /** Volumes that older DEKs come from, oldest first; empty for a volume that was made, not restored or cloned. */
  readonly origins: readonly Origin[];
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

/** Its records of DEKs and origins, and how long it is in all when it is encoded. */
function bodyOf(superblock: Superblock) {
  const records = superblock.deks.map(encodeRecord);
  const origins = encodeOrigins(superblock.origins);
  const bytes = records.reduce((sum, record) => sum + record.length, origins.length);
  const length = HEAD_BYTES + bytes + CRC_BYTES + MAC_BYTES * authenticators(superblock).length;
  return { records, origins, bytes, length };
}

/** How long it is when it is encoded. */
export function superblockBytes(superblock: Superblock): number {
  return bodyOf(superblock).length;
}

/** CONFLICT where it would be too long. */
export function encodeSuperblock(superblock: Superblock, keyOf: DekKey): Buffer {
  assertConsistent(superblock, (problem) => new RangeError(`superblock: ${problem}`));
  const { records, origins, bytes: bodyBytes, length } = bodyOf(superblock);
  const version = origins.length === 0 ? VERSIONS.plain : VERSIONS.withOrigins;
  const keys = authenticators(superblock);
  // What can't be read back must not lie on the disk.
  if (length > SUPERBLOCK_BYTES_MAX)
    throw new SealbdError(
      'CONFLICT',
      `the superblock would have ${length} bytes with its ${records.length} wrapped DEKs, and has ${SUPERBLOCK_BYTES_MAX} at most`,
    );
  const bytes = Buffer.alloc(length);
  const writer = new ByteWriter(bytes);
  const { rewriting, plain, sizeInRoot } = superblock;
  const flags =
    (rewriting ? FLAG_REWRITING : 0) | (plain ? FLAG_PLAIN : 0) | (sizeInRoot ? FLAG_SIZE_IN_ROOT : 0);
  writer.text(MAGIC).u16(version).u8(superblock.suite).u8(flags).u32(superblock.activeDek);
  writer
    .bytes(superblock.uuid)
    .u64(superblock.generation)
    .u64(superblock.sizeBytes)
    .u64(superblock.createdAt);
  writer.u32(bodyBytes).u32(records.length);
  for (const record of records) writer.bytes(record);
  writer.bytes(origins);
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
  const known = Object.values(VERSIONS) as number[];
  if (!known.includes(version))
    throw reader.error(`version ${version}, this program knows ${known.join(' and ')}`);
  const macsAt = checkCrc(bytes);
  const suite = decodeSuite(reader);
  const flags = reader.u8();
  if ((flags & ~FLAGS) !== 0) throw reader.error(`unknown flags ${flags}`);
  const [rewriting, plain] = [(flags & FLAG_REWRITING) !== 0, (flags & FLAG_PLAIN) !== 0];
  const sizeInRoot = (flags & FLAG_SIZE_IN_ROOT) !== 0;
  const activeDek = reader.u32();
  const uuid = Uint8Array.from(reader.bytes(UUID_BYTES));
  const [generation, sizeBytes, createdAt] = [reader.u64(), reader.u64(), reader.u64()];
  const bodyBytes = reader.u32();
  const count = reader.u32();
  if (count > DEKS_PER_VOLUME_MAX) throw reader.error(`${count} DEK records`);
  const deks: DekRecord[] = [];
  for (let i = 0; i < count; i += 1) deks.push(decodeRecord(reader));
  const origins = version === VERSIONS.withOrigins ? decodeOrigins(reader) : [];
  if (reader.offset !== HEAD_BYTES + bodyBytes) throw reader.error('wrong body length');
  const identity = { suite, activeDek, rewriting, plain, sizeInRoot, uuid, generation, sizeBytes, createdAt };
  const superblock = { ...identity, deks, origins };
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
  const { suite, activeDek, deks, sizeBytes, uuid, origins } = superblock;
  const problem = originProblem(origins);
  if (problem !== undefined) throw fail(problem);
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
