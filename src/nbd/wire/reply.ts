/**
 * Replies of the transmission phase.
 *
 *   simple, 16 bytes:  magic u32 0x67446698, error u32, cookie u64, then the data of a READ
 *   chunk, 20 bytes:   magic u32 0x668e33ef, flags u16, type u16, cookie u64, length u32, then the payload:
 *     OFFSET_DATA   offset u64, data            OFFSET_HOLE   offset u64, length u32
 *     BLOCK_STATUS  context u32, extents of (length u32, state u32)
 *     ERROR         error u32, message length u16, message
 *     ERROR_OFFSET  the same, offset u64
 */
import { decodeString, getUint64, setUint64 } from './bytes.js';
import {
  CHUNK_FLAG_DONE,
  CHUNK_HEADER_BYTES,
  Chunk,
  DATA_CHUNK_HEADER_BYTES,
  EXTENT_BYTES,
  HOLE_CHUNK_BYTES,
  MAGIC_SIMPLE_REPLY,
  MAGIC_STRUCTURED_REPLY,
} from './constants.js';

export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

export interface ChunkHeader extends Cookie {
  readonly flags: number;
  readonly type: number;
  readonly length: number;
}

export interface WireExtent {
  readonly length: number;
  readonly state: number;
}

export function encodeSimpleReply(view: DataView, at: number, cookie: Cookie, error: number): void {
  view.setUint32(at, MAGIC_SIMPLE_REPLY);
  view.setUint32(at + 4, error);
  view.setUint32(at + 8, cookie.cookieHigh);
  view.setUint32(at + 12, cookie.cookieLow);
}

export function decodeSimpleReply(view: DataView, at: number): (Cookie & { error: number }) | undefined {
  if (view.getUint32(at) !== MAGIC_SIMPLE_REPLY) return undefined;
  return {
    error: view.getUint32(at + 4),
    cookieHigh: view.getUint32(at + 8),
    cookieLow: view.getUint32(at + 12),
  };
}

export function encodeChunkHeader(
  view: DataView,
  at: number,
  cookie: Cookie,
  type: number,
  flags: number,
  length: number,
): void {
  view.setUint32(at, MAGIC_STRUCTURED_REPLY);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, cookie.cookieHigh);
  view.setUint32(at + 12, cookie.cookieLow);
  view.setUint32(at + 16, length);
}

export function decodeChunkHeader(view: DataView, at: number): ChunkHeader | undefined {
  if (view.getUint32(at) !== MAGIC_STRUCTURED_REPLY) return undefined;
  return {
    flags: view.getUint16(at + 4),
    type: view.getUint16(at + 6),
    cookieHigh: view.getUint32(at + 8),
    cookieLow: view.getUint32(at + 12),
    length: view.getUint32(at + 16),
  };
}

/** The 28 bytes before `dataBytes` of data at device offset `offset`. */
export function encodeDataHeader(
  view: DataView,
  at: number,
  cookie: Cookie,
  done: boolean,
  offset: number,
  dataBytes: number,
): void {
  encodeChunkHeader(view, at, cookie, Chunk.OFFSET_DATA, done ? CHUNK_FLAG_DONE : 0, dataBytes + 8);
  setUint64(view, at + CHUNK_HEADER_BYTES, offset);
}

export function encodeHole(
  view: DataView,
  at: number,
  cookie: Cookie,
  done: boolean,
  offset: number,
  holeBytes: number,
): void {
  const payloadBytes = HOLE_CHUNK_BYTES - CHUNK_HEADER_BYTES;
  encodeChunkHeader(view, at, cookie, Chunk.OFFSET_HOLE, done ? CHUNK_FLAG_DONE : 0, payloadBytes);
  setUint64(view, at + CHUNK_HEADER_BYTES, offset);
  view.setUint32(at + DATA_CHUNK_HEADER_BYTES, holeBytes);
}

export function decodeHole(view: DataView, at: number): { offset: number; length: number } {
  return { offset: getUint64(view, at), length: view.getUint32(at + 8) };
}

export function blockStatusBytes(extents: number): number {
  return CHUNK_HEADER_BYTES + 4 + extents * EXTENT_BYTES;
}

export function encodeBlockStatus(
  view: DataView,
  at: number,
  cookie: Cookie,
  contextId: number,
  extents: readonly WireExtent[],
): void {
  const payloadBytes = blockStatusBytes(extents.length) - CHUNK_HEADER_BYTES;
  encodeChunkHeader(view, at, cookie, Chunk.BLOCK_STATUS, CHUNK_FLAG_DONE, payloadBytes);
  view.setUint32(at + CHUNK_HEADER_BYTES, contextId);
  let cursor = at + CHUNK_HEADER_BYTES + 4;
  for (const { length, state } of extents) {
    view.setUint32(cursor, length);
    view.setUint32(cursor + 4, state);
    cursor += EXTENT_BYTES;
  }
}

/** Decodes the payload of a BLOCK_STATUS chunk. */
export function decodeBlockStatus(
  view: DataView,
  at: number,
  payloadBytes: number,
): { contextId: number; extents: WireExtent[] } | undefined {
  if (payloadBytes < 4 + EXTENT_BYTES || (payloadBytes - 4) % EXTENT_BYTES !== 0) return undefined;
  const extents: WireExtent[] = [];
  for (let cursor = at + 4; cursor < at + payloadBytes; cursor += EXTENT_BYTES) {
    extents.push({ length: view.getUint32(cursor), state: view.getUint32(cursor + 4) });
  }
  return { contextId: view.getUint32(at), extents };
}

export function errorChunkBytes(messageBytes: number, withOffset: boolean): number {
  return CHUNK_HEADER_BYTES + 6 + messageBytes + (withOffset ? 8 : 0);
}

/** A final error chunk; ERROR_OFFSET where `offset` is known. */
export function encodeErrorChunk(
  view: DataView,
  at: number,
  cookie: Cookie,
  error: number,
  message: Uint8Array,
  offset: number | undefined,
): void {
  const type = offset === undefined ? Chunk.ERROR : Chunk.ERROR_OFFSET;
  const payloadBytes = errorChunkBytes(message.length, offset !== undefined) - CHUNK_HEADER_BYTES;
  encodeChunkHeader(view, at, cookie, type, CHUNK_FLAG_DONE, payloadBytes);
  view.setUint32(at + CHUNK_HEADER_BYTES, error);
  view.setUint16(at + CHUNK_HEADER_BYTES + 4, message.length);
  const text = at + CHUNK_HEADER_BYTES + 6;
  for (let i = 0; i < message.length; i++) view.setUint8(text + i, message[i]);
  if (offset !== undefined) setUint64(view, text + message.length, offset);
}

/** Decodes the payload of an ERROR or ERROR_OFFSET chunk. */
export function decodeErrorChunk(
  bytes: Uint8Array,
  type: number,
): { error: number; message: string; offset: number | undefined } | undefined {
  const withOffset = type === Chunk.ERROR_OFFSET;
  const fixedBytes = withOffset ? 14 : 6;
  if (bytes.length < fixedBytes) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const messageBytes = view.getUint16(4);
  if (bytes.length !== fixedBytes + messageBytes) return undefined;
  const message = decodeString(bytes.subarray(6, 6 + messageBytes));
  if (message === undefined) return undefined;
  const offset = withOffset ? getUint64(view, 6 + messageBytes) : undefined;
  return { error: view.getUint32(0), message, offset };
}
