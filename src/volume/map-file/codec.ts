/**
 * Header, chunk frame and segment entries of a map file (docs/FORMAT.md, "Map files"). Pure: MACs are the
 * caller's.
 */
import { ByteReader, ByteWriter, bytesEqual } from '../../base/bytes.js';
import { SealbdError } from '../../base/errors.js';
import { MAP_CHUNK_BYTES_MAX, SEGMENT_SLOTS, SEGMENTS_MAX } from '../../base/limits.js';
import { MAC_BYTES, SALT_BYTES, type SegmentKind, type SuiteId, UUID_BYTES } from '../../segment/format.js';

export const HEADER_BYTES = 128;
export const CHUNK_FRAME_BYTES = 8;
export const SEGMENT_ENTRY_BYTES = 72;
export const CHUNK_KIND_MAP = 1;
export const CHUNK_KIND_SEGMENTS = 2;

const MAGIC = 'SBDMAP1\n';
const VERSION = 1;

/** Which file it is: what the header says, and the key and the context of its MACs. */
export interface MapFileName {
  readonly dekId: number;
  readonly uuid: Uint8Array;
  readonly fileId: number;
  readonly salt: Uint8Array;
}

export interface MapFileCounts {
  readonly mapEntries: number;
  readonly segmentEntries: number;
  readonly chunks: number;
}

export interface SegmentRecord {
  readonly kind: SegmentKind;
  readonly suite: SuiteId;
  readonly dekId: number;
  readonly slots: number;
  readonly segmentId: number;
  readonly originUuid: Uint8Array;
  readonly salt: Uint8Array;
}

/** What an index of the segment table names from now on; undefined: nothing (a tombstone). */
export interface SegmentEntry {
  readonly index: number;
  readonly segment: SegmentRecord | undefined;
}

export function mapFileName(fileId: number): string {
  return `map-${fileId.toString(16).padStart(16, '0')}`;
}

export function integrityError(fileId: number, problem: string): SealbdError {
  return new SealbdError('INTEGRITY', `${mapFileName(fileId)}: ${problem}`);
}

/** The context of KDF label `sealbd/v1/map`. */
export function macContext(name: MapFileName): Uint8Array {
  return new ByteWriter(UUID_BYTES + 8 + SALT_BYTES)
    .bytes(name.uuid)
    .u64(name.fileId)
    .bytes(name.salt)
    .written();
}

/** The header without its MAC. */
export function encodeHeader(name: MapFileName, counts: MapFileCounts): Uint8Array {
  return new ByteWriter(HEADER_BYTES - MAC_BYTES)
    .text(MAGIC)
    .u16(VERSION)
    .u16(0)
    .u32(name.dekId)
    .bytes(name.uuid)
    .u64(name.fileId)
    .bytes(name.salt)
    .u64(counts.mapEntries)
    .u64(counts.segmentEntries)
    .u32(counts.chunks)
    .zeros(20)
    .written();
}

/** Reads a header without its MAC, which must be of the file that `name` says. */
export function decodeHeader(bytes: Uint8Array, name: MapFileName): MapFileCounts {
  const reader = new ByteReader(bytes, mapFileName(name.fileId));
  reader.expect(MAGIC);
  const version = reader.u16();
  if (version !== VERSION) throw reader.error(`version ${version} is unknown`);
  reader.zeros(2);
  if (reader.u32() !== name.dekId) throw reader.error('the header names another DEK');
  if (!bytesEqual(reader.bytes(UUID_BYTES), name.uuid)) throw reader.error('belongs to another volume');
  if (reader.u64() !== name.fileId) throw reader.error('the header names another file');
  if (!bytesEqual(reader.bytes(SALT_BYTES), name.salt)) throw reader.error('the header has another salt');
  const counts = { mapEntries: reader.u64(), segmentEntries: reader.u64(), chunks: reader.u32() };
  reader.zeros(20);
  reader.end();
  return counts;
}

export function encodeChunkFrame(target: Uint8Array, payloadBytes: number, kind: number): void {
  new ByteWriter(target).u32(payloadBytes).u8(kind).zeros(3);
}

export function decodeChunkFrame(bytes: Uint8Array, what: string): { payloadBytes: number; kind: number } {
  const reader = new ByteReader(bytes, what);
  const payloadBytes = reader.u32();
  const kind = reader.u8();
  reader.zeros(3);
  if (payloadBytes < 1 || payloadBytes > MAP_CHUNK_BYTES_MAX)
    throw reader.error(`payload of ${payloadBytes} bytes`);
  if (kind !== CHUNK_KIND_MAP && kind !== CHUNK_KIND_SEGMENTS)
    throw reader.error(`chunk kind ${kind} is unknown`);
  if (kind === CHUNK_KIND_SEGMENTS && payloadBytes % SEGMENT_ENTRY_BYTES !== 0) {
    throw reader.error(`segment entries of ${payloadBytes} bytes`);
  }
  return { payloadBytes, kind };
}

export function encodeSegmentEntry(target: Uint8Array, { index, segment }: SegmentEntry): void {
  const writer = new ByteWriter(target).u32(index);
  if (segment === undefined) {
    writer.zeros(SEGMENT_ENTRY_BYTES - 4);
    return;
  }
  writer.u8(1).u8(segment.kind).u8(segment.suite).u8(0).u32(segment.dekId).u32(segment.slots);
  writer.u64(segment.segmentId).bytes(segment.originUuid).bytes(segment.salt);
}

export function decodeSegmentEntry(bytes: Uint8Array, what: string): SegmentEntry {
  const reader = new ByteReader(bytes, what);
  const index = reader.u32();
  const flags = reader.u8();
  if (index >= SEGMENTS_MAX) throw reader.error(`segment index ${index}`);
  if (flags === 0) {
    reader.zeros(SEGMENT_ENTRY_BYTES - 5);
    return { index, segment: undefined };
  }
  if (flags !== 1) throw reader.error(`segment flags ${flags} are unknown`);
  const kind = reader.u8();
  const suite = reader.u8();
  reader.zeros(1);
  if (kind !== 1 && kind !== 2) throw reader.error(`segment kind ${kind} is unknown`);
  if (suite !== 0 && suite !== 1 && suite !== 2) throw reader.error(`suite ${suite} is unknown`);
  const segment: SegmentRecord = {
    kind,
    suite,
    dekId: reader.u32(),
    slots: reader.u32(),
    segmentId: reader.u64(),
    originUuid: reader.bytes(UUID_BYTES).slice(),
    salt: reader.bytes(SALT_BYTES).slice(),
  };
  if (segment.slots > SEGMENT_SLOTS) throw reader.error(`a segment of ${segment.slots} slots`);
  return { index, segment };
}
