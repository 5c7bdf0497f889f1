/**
 * Options of the handshake and their replies.
 *
 *   greeting, 18 bytes:      magic u64 "NBDMAGIC", magic u64 "IHAVEOPT", flags u16;  the client answers flags u32
 *   option, 16 bytes:        magic u64 "IHAVEOPT", option u32, length u32, then the data
 *   option reply, 20 bytes:  magic u64 0x3e889045565a9, option u32, reply u32, length u32, then the data
 */
import { EXPORT_NAME_BYTES_MAX } from '../../base/limits.js';
import { decodeString, encodeString, setUint64, viewOf } from './bytes.js';
import {
  EXPORT_NAME_PADDING_BYTES,
  EXPORT_NAME_REPLY_BYTES,
  GREETING_BYTES,
  Info,
  MAGIC_INIT,
  MAGIC_OPTION,
  MAGIC_OPTION_REPLY,
  OPTION_HEADER_BYTES,
  OPTION_REPLY_HEADER_BYTES,
} from './constants.js';

export interface OptionHeader {
  readonly option: number;
  readonly length: number;
}

export interface InfoRequest {
  readonly name: string;
  readonly infos: readonly number[];
}

export interface MetaRequest {
  readonly name: string;
  readonly queries: readonly string[];
}

export function encodeGreeting(flags: number): Uint8Array {
  const bytes = new Uint8Array(GREETING_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, MAGIC_INIT[0]);
  view.setUint32(4, MAGIC_INIT[1]);
  view.setUint32(8, MAGIC_OPTION[0]);
  view.setUint32(12, MAGIC_OPTION[1]);
  view.setUint16(16, flags);
  return bytes;
}

/** Undefined where the magic is wrong. */
export function decodeOptionHeader(bytes: Uint8Array): OptionHeader | undefined {
  const view = viewOf(bytes);
  if (view.getUint32(0) !== MAGIC_OPTION[0] || view.getUint32(4) !== MAGIC_OPTION[1]) return undefined;
  return { option: view.getUint32(8), length: view.getUint32(12) };
}

export function encodeOption(option: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(OPTION_HEADER_BYTES + data.length);
  const view = viewOf(bytes);
  view.setUint32(0, MAGIC_OPTION[0]);
  view.setUint32(4, MAGIC_OPTION[1]);
  view.setUint32(8, option);
  view.setUint32(12, data.length);
  bytes.set(data, OPTION_HEADER_BYTES);
  return bytes;
}

export function encodeOptionReply(option: number, reply: number, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(OPTION_REPLY_HEADER_BYTES + data.length);
  const view = viewOf(bytes);
  view.setUint32(0, MAGIC_OPTION_REPLY[0]);
  view.setUint32(4, MAGIC_OPTION_REPLY[1]);
  view.setUint32(8, option);
  view.setUint32(12, reply);
  view.setUint32(16, data.length);
  bytes.set(data, OPTION_REPLY_HEADER_BYTES);
  return bytes;
}

export function decodeOptionReplyHeader(
  bytes: Uint8Array,
): { option: number; reply: number; length: number } | undefined {
  const view = viewOf(bytes);
  if (view.getUint32(0) !== MAGIC_OPTION_REPLY[0] || view.getUint32(4) !== MAGIC_OPTION_REPLY[1]) {
    return undefined;
  }
  return { option: view.getUint32(8), reply: view.getUint32(12), length: view.getUint32(16) };
}

/** What EXPORT_NAME is answered with: no header, and zeros unless the client declined them. */
export function encodeExportNameReply(sizeBytes: number, flags: number, padded: boolean): Uint8Array {
  const bytes = new Uint8Array(EXPORT_NAME_REPLY_BYTES + (padded ? EXPORT_NAME_PADDING_BYTES : 0));
  const view = viewOf(bytes);
  setUint64(view, 0, sizeBytes);
  view.setUint16(8, flags);
  return bytes;
}

export function encodeInfoExport(sizeBytes: number, flags: number): Uint8Array {
  const bytes = new Uint8Array(12);
  const view = viewOf(bytes);
  view.setUint16(0, Info.EXPORT);
  setUint64(view, 2, sizeBytes);
  view.setUint16(10, flags);
  return bytes;
}

export function encodeInfoText(info: number, text: string): Uint8Array {
  const encoded = encodeString(text, EXPORT_NAME_BYTES_MAX);
  const bytes = new Uint8Array(2 + encoded.length);
  viewOf(bytes).setUint16(0, info);
  bytes.set(encoded, 2);
  return bytes;
}

export function encodeInfoBlockSize(minimum: number, preferred: number, maximum: number): Uint8Array {
  const bytes = new Uint8Array(14);
  const view = viewOf(bytes);
  view.setUint16(0, Info.BLOCK_SIZE);
  view.setUint32(2, minimum);
  view.setUint32(6, preferred);
  view.setUint32(10, maximum);
  return bytes;
}

/** One line of a LIST: the name, then free text. */
export function encodeServerEntry(name: string, description: string): Uint8Array {
  const nameBytes = encodeString(name, EXPORT_NAME_BYTES_MAX);
  const textBytes = encodeString(description, EXPORT_NAME_BYTES_MAX);
  const bytes = new Uint8Array(4 + nameBytes.length + textBytes.length);
  viewOf(bytes).setUint32(0, nameBytes.length);
  bytes.set(nameBytes, 4);
  bytes.set(textBytes, 4 + nameBytes.length);
  return bytes;
}

export function encodeMetaContext(id: number, name: string): Uint8Array {
  const nameBytes = encodeString(name, EXPORT_NAME_BYTES_MAX);
  const bytes = new Uint8Array(4 + nameBytes.length);
  viewOf(bytes).setUint32(0, id);
  bytes.set(nameBytes, 4);
  return bytes;
}

/** Name, then a count and that many 16-bit info types. Undefined where the lengths do not add up. */
export function decodeInfoRequest(data: Uint8Array): InfoRequest | undefined {
  const name = lengthPrefixed(data, 0);
  if (name === undefined || data.length < name.end + 2) return undefined;
  const view = viewOf(data);
  const count = view.getUint16(name.end);
  if (data.length !== name.end + 2 + 2 * count) return undefined;
  const infos: number[] = [];
  for (let i = 0; i < count; i++) infos.push(view.getUint16(name.end + 2 + 2 * i));
  return { name: name.text, infos };
}

export function encodeInfoRequest({ name, infos }: InfoRequest): Uint8Array {
  const nameBytes = new TextEncoder().encode(name);
  const bytes = new Uint8Array(4 + nameBytes.length + 2 + 2 * infos.length);
  const view = viewOf(bytes);
  view.setUint32(0, nameBytes.length);
  bytes.set(nameBytes, 4);
  view.setUint16(4 + nameBytes.length, infos.length);
  infos.forEach((info, i) => {
    view.setUint16(6 + nameBytes.length + 2 * i, info);
  });
  return bytes;
}

/** Name, then a count and that many queries, each with its length. `TOO_BIG` above `queriesMax`. */
export function decodeMetaRequest(data: Uint8Array, queriesMax: number): MetaRequest | 'TOO_BIG' | undefined {
  const name = lengthPrefixed(data, 0);
  if (name === undefined || data.length < name.end + 4) return undefined;
  const count = viewOf(data).getUint32(name.end);
  const queries: string[] = [];
  let cursor = name.end + 4;
  // Every query is walked before the count is judged: a malformed list is INVALID however long it claims to be.
  for (let i = 0; i < count; i++) {
    const query = lengthPrefixed(data, cursor);
    if (query === undefined) return undefined;
    if (i < queriesMax) queries.push(query.text);
    cursor = query.end;
  }
  if (cursor !== data.length) return undefined;
  return count > queriesMax ? 'TOO_BIG' : { name: name.text, queries };
}

export function encodeMetaRequest({ name, queries }: MetaRequest): Uint8Array {
  const parts = [name, ...queries].map((text) => new TextEncoder().encode(text));
  const bytes = new Uint8Array(4 + parts.reduce((sum, part) => sum + 4 + part.length, 0));
  const view = viewOf(bytes);
  let cursor = 0;
  parts.forEach((part, i) => {
    view.setUint32(cursor, part.length);
    bytes.set(part, cursor + 4);
    cursor += 4 + part.length;
    if (i === 0) {
      view.setUint32(cursor, queries.length);
      cursor += 4;
    }
  });
  return bytes;
}

/** A 32-bit length and that many bytes of a protocol string, which may not pass the string limit. */
function lengthPrefixed(data: Uint8Array, at: number): { text: string; end: number } | undefined {
  if (data.length - at < 4) return undefined;
  const length = viewOf(data).getUint32(at);
  if (length > data.length - at - 4 || length > EXPORT_NAME_BYTES_MAX) return undefined;
  const text = decodeString(data.subarray(at + 4, at + 4 + length));
  return text === undefined ? undefined : { text, end: at + 4 + length };
}
