/**
 * One wrapped DEK as superblocks and manifests of backups hold it (docs/FORMAT.md, "Superblock"). Pure.
 */
import { type ByteReader, ByteWriter } from '../base/bytes.js';
import { KEY_STRING_BYTES_MAX } from '../base/limits.js';

const FIXED_BYTES = 36;
export const CHECK_VALUE_BYTES = 16;
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

export function encodeRecord(record: DekRecord): Uint8Array {
  const text = new TextEncoder();
  const strings = [
    text.encode(record.keyUri),
    text.encode(record.resolvedKeyId),
    text.encode(record.keyVersion),
  ];
  const fields = [...strings, record.wrapped, new Uint8Array(0)];
  if (fields.some((field) => field.length > KEY_STRING_BYTES_MAX))
    throw new RangeError('superblock: a key string is too long');
  const length = fields.reduce((sum, field) => sum + 2 + field.length, FIXED_BYTES);
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

export function decodeRecord(reader: ByteReader): DekRecord {
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
