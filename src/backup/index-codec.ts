/** The index of a backup (docs/FORMAT.md, "Backup"): which segments and slots it has. Pure. */
import { ByteReader, ByteWriter } from '../base/bytes.js';
import { SEGMENT_SLOTS, SEGMENTS_MAX } from '../base/limits.js';
import { asKind, asSuite, SALT_BYTES, UUID_BYTES } from '../segment/format.js';
import type { SegmentIdentity } from '../segment/segment.js';
import { SlotSet } from './slot-set.js';

const MAGIC = 'SBDBKI1\n';
const VERSION = 1;
const HEAD_BYTES = 16;
const ENTRY_BYTES = 80;

/** One data file. `index` names the segment in the whole chain of backups. */
export interface IndexEntry extends SegmentIdentity {
  /** CRC32C of the whole data file. */
  readonly crc: number;
  readonly slots: SlotSet;
}

export function encodeIndex(entries: readonly IndexEntry[]): Uint8Array {
  const bitmaps = entries.reduce((sum, { slots }) => sum + slots.bitmap().length, 0);
  const writer = new ByteWriter(HEAD_BYTES + ENTRY_BYTES * entries.length + bitmaps);
  writer.text(MAGIC).u16(VERSION).u16(0).u32(entries.length);
  for (const { index, suite, kind, dekId, id, originUuid, salt, crc, slots } of entries) {
    writer.u32(index).u8(suite).u8(kind).u16(0).u32(dekId).u32(slots.slots).u64(id);
    writer.bytes(originUuid).bytes(salt).u32(crc).u32(slots.count).bytes(slots.bitmap());
  }
  return writer.written();
}

/** INTEGRITY where the bytes are no index. `what` names it in errors. */
export function decodeIndex(bytes: Uint8Array, what: string): IndexEntry[] {
  const reader = new ByteReader(bytes, what);
  reader.expect(MAGIC);
  const version = reader.u16();
  if (version !== VERSION) throw reader.error(`version ${version}, this program knows ${VERSION}`);
  reader.zeros(2);
  const count = reader.u32();
  const entries: IndexEntry[] = [];
  for (let i = 0; i < count; i++) {
    const entry = decodeEntry(reader);
    if (entry.index <= (entries.at(-1)?.index ?? -1)) throw reader.error('segments out of order');
    entries.push(entry);
  }
  reader.end();
  return entries;
}

function decodeEntry(reader: ByteReader): IndexEntry {
  const index = reader.u32();
  const [suite, kind] = [asSuite(reader.u8()), asKind(reader.u8())];
  reader.zeros(2);
  const dekId = reader.u32();
  const slots = reader.u32();
  if (index >= SEGMENTS_MAX) throw reader.error(`segment index ${index}`);
  if (slots < 1 || slots > SEGMENT_SLOTS) throw reader.error(`a segment of ${slots} slots`);
  const identity = {
    ...{ index, suite, kind, dekId, id: reader.u64() },
    originUuid: reader.bytes(UUID_BYTES).slice(),
    salt: reader.bytes(SALT_BYTES).slice(),
  };
  const crc = reader.u32();
  const count = reader.u32();
  const set = SlotSet.of(reader.bytes(Math.ceil(slots / 8)).slice(), slots);
  const beyond = slots % 8 === 0 ? 0 : set.bitmap()[slots >> 3] >> (slots % 8);
  if (!set.has(slots - 1) || beyond !== 0 || set.count !== count) throw reader.error('a wrong bitmap');
  return { ...identity, crc, slots: set };
}
