/**
 * The manifest of a backup (docs/FORMAT.md, "Backup"): what it is a backup of, the wrapped DEKs, and checksums of index
 * and map. Pure: decoding checks structure and CRC; whether the MAC holds is asked once there is a DEK.
 */
import { createHash } from 'node:crypto';
import { ByteReader, ByteWriter } from '../base/bytes.js';
import type { Suite } from '../base/ciphers.js';
import {
  BLOCK_BYTES,
  DEKS_PER_VOLUME_MAX,
  MANIFEST_BYTES_MAX,
  NAME_PATTERN,
  VOLUME_BYTES_MAX,
} from '../base/limits.js';
import { type DekRecord, decodeRecord, encodeRecord } from '../keys/dek-record.js';
import { decodeOrigins, encodeOrigins, type Lineage, originProblem } from '../keys/origins.js';
import { addon, type KeyHandle } from '../native/addon.js';
import { asSuite, MAC_BYTES, SALT_BYTES, UUID_BYTES } from '../segment/format.js';

const MAGIC = 'SBDBKM1\n';
const VERSION = 1;
const HEAD_BYTES = 216;
const BODY_LENGTH_AT = 208;
const CRC_BYTES = 4;
export const SHA256_BYTES = 32;
const LABEL = 'sealbd/v1/backup';
const FLAG_INCREMENTAL = 1;
const FLAG_PLAIN = 2;
const TEXT_BYTES_MAX = 4096;

export interface BaseRef {
  readonly backupUuid: Uint8Array;
  /** SHA-256 of its manifest. */
  readonly digest: Uint8Array;
  /** Where it was when this backup was made: a hint. */
  readonly path: string;
}

export interface Manifest extends Lineage {
  /** Of new segments. */
  readonly suite: Suite;
  /** Some segments may be in plaintext: the volume was being converted from `none`. */
  readonly plain: boolean;
  /** The newest DEK, which authenticates manifest and map; 0 in `none`. */
  readonly dekId: number;
  readonly backupUuid: Uint8Array;
  /** Unix ms. */
  readonly createdAt: number;
  readonly sizeBytes: number;
  /** Everything up to it is in, nothing after it. */
  readonly sequence: number;
  readonly mappedBlocks: number;
  /** In all data files. */
  readonly slots: number;
  readonly segments: number;
  /** The next free segment index of the chain. */
  readonly nextIndex: number;
  readonly index: { readonly bytes: number; readonly sha256: Uint8Array };
  readonly map: { readonly bytes: number; readonly sha256: Uint8Array; readonly salt: Uint8Array };
  readonly name: string;
  /** Those that the backup needs, wrapped; the newest is active, the others are retired. */
  readonly deks: readonly DekRecord[];
  readonly base: BaseRef | undefined;
}

export interface DecodedManifest {
  readonly manifest: Manifest;
  readonly covered: Uint8Array;
  readonly mac: Uint8Array;
  /** SHA-256 of the whole file. */
  readonly digest: Uint8Array;
}

export function sha256(bytes: Uint8Array): Uint8Array {
  return Uint8Array.from(createHash('sha256').update(bytes).digest());
}

/** `key` is the DEK that the manifest names. */
export function encodeManifest(manifest: Manifest, key: KeyHandle): Uint8Array {
  const body = encodeBody(manifest);
  const bytes = new Uint8Array(HEAD_BYTES + body.length + CRC_BYTES + MAC_BYTES);
  if (bytes.length > MANIFEST_BYTES_MAX) throw new RangeError('manifest: too long');
  const { index, map } = manifest;
  const flags = (manifest.base === undefined ? 0 : FLAG_INCREMENTAL) | (manifest.plain ? FLAG_PLAIN : 0);
  const writer = new ByteWriter(bytes).text(MAGIC).u16(VERSION).u8(manifest.suite).u8(flags);
  writer.u32(manifest.dekId).bytes(manifest.uuid).bytes(manifest.backupUuid);
  writer.u64(manifest.createdAt).u64(manifest.sizeBytes).u64(manifest.sequence);
  writer.u64(manifest.mappedBlocks).u64(manifest.slots).u32(manifest.segments).u32(manifest.nextIndex);
  writer.u64(index.bytes).bytes(index.sha256).u64(map.bytes).bytes(map.sha256).bytes(map.salt);
  writer.u32(body.length).u32(manifest.deks.length).bytes(body);
  writer.bytes(addon.keyMac(key, LABEL, contextOf(manifest), writer.written()));
  writer.u32(addon.crc32c(writer.written(), 0));
  return bytes;
}

function encodeBody({ name, origins, deks, base }: Manifest): Uint8Array {
  const encodedOrigins = origins.length === 0 ? new Uint8Array(4) : encodeOrigins(origins);
  const pieces = [textField(name), encodedOrigins, ...deks.map(encodeRecord)];
  if (base !== undefined) pieces.push(base.backupUuid, base.digest, textField(base.path));
  return Buffer.concat(pieces);
}

function textField(text: string): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  return new ByteWriter(2 + bytes.length).u16(bytes.length).bytes(bytes).written();
}

/** INTEGRITY where the bytes are no manifest of a known version, or their CRC is wrong. `what` names it in errors. */
export function decodeManifest(bytes: Uint8Array, what: string): DecodedManifest {
  const reader = new ByteReader(bytes, what);
  if (bytes.length > MANIFEST_BYTES_MAX) throw reader.error('too long');
  reader.expect(MAGIC);
  const version = reader.u16();
  if (version !== VERSION) throw reader.error(`version ${version}, this program knows ${VERSION}`);
  const macAt = checkCrc(bytes, what);
  const suite = asSuite(reader.u8());
  const flags = reader.u8();
  if ((flags & ~(FLAG_INCREMENTAL | FLAG_PLAIN)) !== 0) throw reader.error(`unknown flags ${flags}`);
  const head = decodeHead(reader);
  const bodyBytes = reader.u32();
  const dekCount = reader.u32();
  if (dekCount > DEKS_PER_VOLUME_MAX) throw reader.error(`${dekCount} DEK records`);
  const name = reader.text(textLength(reader));
  const origins = decodeOriginsOrNone(bytes, reader);
  const deks: DekRecord[] = [];
  for (let i = 0; i < dekCount; i++) deks.push(decodeRecord(reader));
  const base = (flags & FLAG_INCREMENTAL) === 0 ? undefined : decodeBase(reader);
  if (reader.offset !== HEAD_BYTES + bodyBytes) throw reader.error('wrong body length');
  const plain = (flags & FLAG_PLAIN) !== 0;
  const manifest: Manifest = { suite, plain, ...head, name, origins, deks, base };
  assertConsistent(manifest, (problem) => reader.error(problem));
  const [covered, mac] = [bytes.subarray(0, macAt), bytes.subarray(macAt, macAt + MAC_BYTES)];
  return { manifest, covered, mac, digest: sha256(bytes) };
}

function decodeHead(reader: ByteReader) {
  return {
    dekId: reader.u32(),
    uuid: reader.bytes(UUID_BYTES).slice(),
    backupUuid: reader.bytes(UUID_BYTES).slice(),
    createdAt: reader.u64(),
    sizeBytes: reader.u64(),
    sequence: reader.u64(),
    mappedBlocks: reader.u64(),
    slots: reader.u64(),
    segments: reader.u32(),
    nextIndex: reader.u32(),
    index: { bytes: reader.u64(), sha256: reader.bytes(SHA256_BYTES).slice() },
    map: {
      bytes: reader.u64(),
      sha256: reader.bytes(SHA256_BYTES).slice(),
      salt: reader.bytes(SALT_BYTES).slice(),
    },
  };
}

function decodeOriginsOrNone(bytes: Uint8Array, reader: ByteReader) {
  const count = new ByteReader(bytes, 'manifest', reader.offset).u32();
  if (count !== 0) return decodeOrigins(reader);
  reader.zeros(4);
  return [];
}

function decodeBase(reader: ByteReader): BaseRef {
  const backupUuid = reader.bytes(UUID_BYTES).slice();
  const digest = reader.bytes(SHA256_BYTES).slice();
  return { backupUuid, digest, path: reader.text(textLength(reader)) };
}

function textLength(reader: ByteReader): number {
  const length = reader.u16();
  if (length > TEXT_BYTES_MAX) throw reader.error(`a text of ${length} bytes`);
  return length;
}

/** Over all that is before it, the MAC included, so that no accident needs the key to be found. Where the MAC begins. */
function checkCrc(bytes: Uint8Array, what: string): number {
  const reader = new ByteReader(bytes, what, BODY_LENGTH_AT);
  const at = HEAD_BYTES + reader.u32();
  const end = at + MAC_BYTES;
  if (end + CRC_BYTES !== bytes.length) throw reader.error('wrong length');
  if (new ByteReader(bytes, what, end).u32() !== addon.crc32c(bytes.subarray(0, end), 0))
    throw reader.error('wrong CRC: the bytes are damaged');
  return at;
}

function assertConsistent(manifest: Manifest, fail: (problem: string) => Error): void {
  const { sizeBytes, suite, dekId, deks, origins, name } = manifest;
  if (!NAME_PATTERN.test(name)) throw fail(`${JSON.stringify(name)} is no volume name`);
  if (sizeBytes < BLOCK_BYTES || sizeBytes > VOLUME_BYTES_MAX || sizeBytes % BLOCK_BYTES !== 0)
    throw fail(`${sizeBytes} is no volume size`);
  const problem = originProblem(origins);
  if (problem !== undefined) throw fail(problem);
  const ids = deks.map((dek) => dek.id);
  if (new Set(ids).size !== ids.length || ids.includes(0)) throw fail('DEK ids must differ and not be 0');
  if (suite === 0 ? dekId !== 0 || ids.length > 0 : Math.max(...ids) !== dekId)
    throw fail('it is not under its newest DEK');
  const wrong = deks.some((dek) => dek.state !== (dek.id === dekId ? 'active' : 'retired'));
  if (wrong) throw fail('one DEK must be active, the newest');
}

export function manifestAuthenticates({ manifest, covered, mac }: DecodedManifest, key: KeyHandle): boolean {
  return addon.keyMacVerify(key, LABEL, contextOf(manifest), covered, mac);
}

function contextOf({ uuid, backupUuid }: Manifest): Uint8Array {
  return new ByteWriter(2 * UUID_BYTES).bytes(uuid).bytes(backupUuid).written();
}
