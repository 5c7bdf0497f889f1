/**
 * Bytes of a segment (docs/FORMAT.md, "Segment"): header, slot meta, unmap entries, index. Pure: it reads and
 * writes buffers that it is given, and knows nothing of keys or files. MACs are the caller's.
 */
import { ByteReader, ByteWriter } from '../base/bytes.js';
import type { Suite } from '../base/ciphers.js';
import { SealbdError } from '../base/errors.js';
import { BLOCK_BYTES, SEGMENT_HEADER_BYTES, SEGMENT_SLOTS, SLOT_BYTES } from '../base/limits.js';

export const MAC_BYTES = 16;
export const SALT_BYTES = 32;
export const UUID_BYTES = 16;

export const SEGMENT_KIND_HEAD = 1;
export const SEGMENT_KIND_MOVED = 2;
export type SegmentKind = typeof SEGMENT_KIND_HEAD | typeof SEGMENT_KIND_MOVED;
export type SuiteId = Suite;

export const SLOT_KIND_DATA = 1;
export const SLOT_KIND_EXTENTS = 2;

const HEADER_MAGIC = 'SBDSEG1\n';
const INDEX_MAGIC = 'SBDIDX1\n';
const VERSION = 1;
const INDEX_FIXED_BYTES = 16;
const INDEX_ENTRY_BYTES = 8;
const META_OFFSET = BLOCK_BYTES;
const META_BYTES = 16;
const NO_CLAIM = 0xffffff;

export const UNMAP_ENTRY_BYTES = 24;
export const UNMAP_ENTRIES_MAX = Math.floor(BLOCK_BYTES / UNMAP_ENTRY_BYTES);

export interface SegmentHeader {
  readonly suite: SuiteId;
  readonly kind: SegmentKind;
  readonly dekId: number;
  readonly originUuid: Uint8Array;
  readonly id: number;
  readonly previousHeadId: number;
  readonly salt: Uint8Array;
  readonly createdAtMs: number;
  readonly slotsMax: number;
}

/** The header with its MAC field zero, and the part that the MAC covers. */
export function encodeHeader(header: SegmentHeader): { bytes: Uint8Array; covered: Uint8Array } {
  const bytes = new Uint8Array(SEGMENT_HEADER_BYTES);
  new ByteWriter(bytes)
    .text(HEADER_MAGIC)
    .u16(VERSION)
    .u8(header.suite)
    .u8(header.kind)
    .u32(header.dekId)
    .bytes(header.originUuid)
    .u64(header.id)
    .u64(header.previousHeadId)
    .bytes(header.salt)
    .u64(header.createdAtMs)
    .u32(header.slotsMax);
  return { bytes, covered: bytes.subarray(0, SEGMENT_HEADER_BYTES - MAC_BYTES) };
}

export function decodeHeader(bytes: Uint8Array): {
  header: SegmentHeader;
  covered: Uint8Array;
  mac: Uint8Array;
} {
  const reader = new ByteReader(bytes, 'segment header');
  reader.expect(HEADER_MAGIC);
  const version = reader.u16();
  if (version !== VERSION) throw reader.error(`version ${version} is unknown`);
  const header: SegmentHeader = {
    suite: asSuite(reader.u8()),
    kind: asKind(reader.u8()),
    dekId: reader.u32(),
    originUuid: reader.bytes(UUID_BYTES).slice(),
    id: reader.u64(),
    previousHeadId: reader.u64(),
    salt: reader.bytes(SALT_BYTES).slice(),
    createdAtMs: reader.u64(),
    slotsMax: reader.u32(),
  };
  if (header.slotsMax < 1 || header.slotsMax > SEGMENT_SLOTS) throw reader.error('slot count out of range');
  reader.zeros(reader.remaining - MAC_BYTES);
  const mac = reader.bytes(MAC_BYTES);
  reader.end();
  return { header, covered: bytes.subarray(0, SEGMENT_HEADER_BYTES - MAC_BYTES), mac };
}

export function asSuite(value: number): SuiteId {
  if (value === 0 || value === 1 || value === 2) return value;
  throw new SealbdError('INTEGRITY', `suite ${value} is unknown`);
}

export function asKind(value: number): SegmentKind {
  if (value === SEGMENT_KIND_HEAD || value === SEGMENT_KIND_MOVED) return value;
  throw new SealbdError('INTEGRITY', `segment kind ${value} is unknown`);
}

/** suite ‖ origin uuid ‖ segment id ‖ salt: the KDF context of every key of a segment. */
export function segmentContext(segment: {
  suite: SuiteId;
  originUuid: Uint8Array;
  id: number;
  salt: Uint8Array;
}): Uint8Array {
  return new ByteWriter(1 + UUID_BYTES + 8 + SALT_BYTES)
    .u8(segment.suite)
    .bytes(segment.originUuid)
    .u64(segment.id)
    .bytes(segment.salt)
    .written();
}

export function slotOffset(position: number): number {
  return SEGMENT_HEADER_BYTES + position * SLOT_BYTES;
}

export interface SlotMeta {
  sequence: number;
  lba: number;
  kind: number;
  /** Last sequence known durable when the slot was sealed; -1 where it makes no claim. */
  durable: number;
}

/** The meta of the slot that starts at `offset`. Meaningless unless the slot authenticates. */
export function readSlotMeta(bytes: Uint8Array, offset: number): SlotMeta {
  const reader = new ByteReader(
    bytes.subarray(offset + META_OFFSET, offset + META_OFFSET + META_BYTES),
    'slot',
  );
  const sequence = reader.u56();
  const lba = reader.u40();
  const kind = reader.u8();
  const lag = reader.u8() + reader.u16() * 0x100;
  return { sequence, lba, kind, durable: lag === NO_CLAIM ? -1 : sequence - lag };
}

const LBA_OFFSET = META_OFFSET + 7;

/** Its block number alone, for whoever looks at many. */
export function readSlotLba(bytes: Uint8Array, offset: number): number {
  const at = offset + LBA_OFFSET;
  const low = bytes[at] + bytes[at + 1] * 0x100 + bytes[at + 2] * 0x1_0000 + bytes[at + 3] * 0x100_0000;
  return low + bytes[at + 4] * 0x1_0000_0000;
}

export interface UnmapEntry {
  readonly sequence: number;
  readonly lba: number;
  readonly blocks: number;
}

/** Fills one block. At most UNMAP_ENTRIES_MAX entries. */
export function writeUnmaps(block: Uint8Array, entries: readonly UnmapEntry[]): void {
  block.fill(0);
  const writer = new ByteWriter(block);
  for (const entry of entries) writer.u64(entry.sequence).u64(entry.lba).u64(entry.blocks);
}

export function readUnmaps(block: Uint8Array): UnmapEntry[] {
  const reader = new ByteReader(block, 'unmap slot');
  const entries: UnmapEntry[] = [];
  while (entries.length < UNMAP_ENTRIES_MAX) {
    const entry = { sequence: reader.u64(), lba: reader.u64(), blocks: reader.u64() };
    if (entry.blocks === 0) break;
    entries.push(entry);
  }
  return entries;
}

/** What the index says of one position. */
export interface IndexEntry {
  readonly lba: number;
  readonly kind: number;
}

export function indexBytes(slots: number): number {
  return INDEX_FIXED_BYTES + slots * INDEX_ENTRY_BYTES + MAC_BYTES;
}

/** The index with its MAC field zero, and the part that the MAC covers. */
export function encodeIndex(
  slots: number,
  entry: (position: number) => IndexEntry,
): { bytes: Uint8Array; covered: Uint8Array } {
  const bytes = new Uint8Array(indexBytes(slots));
  const writer = new ByteWriter(bytes).text(INDEX_MAGIC).u32(slots).u32(0);
  for (let position = 0; position < slots; position++) {
    const { lba, kind } = entry(position);
    writer.u40(lba).u8(kind).u16(0);
  }
  return { bytes, covered: bytes.subarray(0, bytes.length - MAC_BYTES) };
}

export function decodeIndex(
  bytes: Uint8Array,
  slots: number,
): { entry: (position: number) => IndexEntry; covered: Uint8Array; mac: Uint8Array } {
  const reader = new ByteReader(bytes, 'segment index');
  reader.expect(INDEX_MAGIC);
  if (reader.u32() !== slots) throw reader.error('wrong slot count');
  reader.zeros(4);
  const entry = (position: number): IndexEntry => {
    const at = new ByteReader(bytes, 'segment index', INDEX_FIXED_BYTES + position * INDEX_ENTRY_BYTES);
    return { lba: at.u40(), kind: at.u8() };
  };
  return {
    entry,
    covered: bytes.subarray(0, bytes.length - MAC_BYTES),
    mac: bytes.subarray(bytes.length - MAC_BYTES),
  };
}

export function segmentFileName(id: number): string {
  return `seg-${id.toString(16).padStart(16, '0')}`;
}

/** The id in a segment file's name, or undefined for any other name. */
export function parseSegmentFileName(name: string): number | undefined {
  const match = /^seg-([0-9a-f]{16})$/.exec(name);
  return match === null ? undefined : Number.parseInt(match[1], 16);
}

/** Bytes of a file that can take a whole segment of `slots`, index included. */
export function segmentFileBytes(slots: number): number {
  return slotOffset(slots) + indexBytes(slots);
}
