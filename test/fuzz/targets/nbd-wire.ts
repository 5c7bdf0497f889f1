/** Whatever a client or a server sends decodes to nothing, or to what encodes to the same bytes again. */
import { decodeString, encodeString, viewOf } from '../../../src/nbd/wire/bytes.js';
import { CHUNK_HEADER_BYTES, Chunk, REQUEST_HEADER_BYTES } from '../../../src/nbd/wire/constants.js';
import {
  decodeInfoRequest,
  decodeMetaRequest,
  decodeOptionHeader,
  decodeOptionReplyHeader,
  encodeInfoRequest,
  encodeMetaRequest,
  encodeOption,
  encodeOptionReply,
} from '../../../src/nbd/wire/option.js';
import {
  blockStatusBytes,
  decodeBlockStatus,
  decodeChunkHeader,
  decodeErrorChunk,
  decodeHole,
  decodeSimpleReply,
  encodeBlockStatus,
  encodeChunkHeader,
  encodeErrorChunk,
  encodeHole,
  encodeSimpleReply,
  errorChunkBytes,
} from '../../../src/nbd/wire/reply.js';
import { decodeRequest, emptyRequest, encodeRequest } from '../../../src/nbd/wire/request.js';
import { requireSame, requireThat } from './oracle.js';

const COOKIE = { cookieHigh: 1, cookieLow: 2 };
const QUERIES_MAX = 3;

const PARTS = [request, optionHeaders, info, meta, replyHeaders, blockStatus, errorChunk, text] as const;

export function fuzz(data: Uint8Array): void {
  if (data.length === 0) return;
  PARTS[data[0] % PARTS.length](data.subarray(1));
}

function request(data: Uint8Array): void {
  if (data.length < REQUEST_HEADER_BYTES) return;
  const found = emptyRequest();
  if (!decodeRequest(viewOf(data), 0, found) || !Number.isSafeInteger(found.offset)) return;
  const back = new Uint8Array(REQUEST_HEADER_BYTES);
  encodeRequest(viewOf(back), 0, found);
  requireSame(back, data.subarray(0, REQUEST_HEADER_BYTES), 'request');
}

function optionHeaders(data: Uint8Array): void {
  const header = data.length < 16 ? undefined : decodeOptionHeader(data);
  if (header !== undefined && header.length === data.length - 16)
    requireSame(encodeOption(header.option, data.subarray(16)), data, 'option');
  const reply = data.length < 20 ? undefined : decodeOptionReplyHeader(data);
  if (reply !== undefined && reply.length === data.length - 20)
    requireSame(encodeOptionReply(reply.option, reply.reply, data.subarray(20)), data, 'option reply');
}

function info(data: Uint8Array): void {
  const found = decodeInfoRequest(data);
  if (found !== undefined) requireSame(encodeInfoRequest(found), data, 'info');
}

function meta(data: Uint8Array): void {
  const few = decodeMetaRequest(data, QUERIES_MAX);
  const all = decodeMetaRequest(data, Number.MAX_SAFE_INTEGER);
  requireThat((few === undefined) === (all === undefined), 'a limit does not make a list right or wrong');
  if (all === undefined || all === 'TOO_BIG') return;
  requireThat((few === 'TOO_BIG') === all.queries.length > QUERIES_MAX, 'too many is too many');
  requireSame(encodeMetaRequest(all), data, 'meta context');
}

function replyHeaders(data: Uint8Array): void {
  if (data.length < CHUNK_HEADER_BYTES + 12) return;
  const view = viewOf(data);
  const back = new Uint8Array(CHUNK_HEADER_BYTES + 12);
  const simple = decodeSimpleReply(view, 0);
  if (simple !== undefined) {
    encodeSimpleReply(viewOf(back), 0, simple, simple.error);
    requireSame(back.subarray(0, 16), data.subarray(0, 16), 'simple reply');
  }
  const chunk = decodeChunkHeader(view, 0);
  if (chunk === undefined) return;
  encodeChunkHeader(viewOf(back), 0, chunk, chunk.type, chunk.flags, chunk.length);
  requireSame(back.subarray(0, CHUNK_HEADER_BYTES), data.subarray(0, CHUNK_HEADER_BYTES), 'chunk');
  const hole = decodeHole(view, CHUNK_HEADER_BYTES);
  if (!Number.isSafeInteger(hole.offset)) return;
  encodeHole(viewOf(back), 0, chunk, false, hole.offset, hole.length);
  requireSame(back.subarray(CHUNK_HEADER_BYTES), data.subarray(CHUNK_HEADER_BYTES, back.length), 'hole');
}

function blockStatus(data: Uint8Array): void {
  const found = decodeBlockStatus(viewOf(data), 0, data.length);
  if (found === undefined) return;
  const back = new Uint8Array(blockStatusBytes(found.extents.length));
  encodeBlockStatus(viewOf(back), 0, COOKIE, found.contextId, found.extents);
  requireSame(back.subarray(CHUNK_HEADER_BYTES), data, 'block status');
}

function errorChunk(data: Uint8Array): void {
  for (const type of [Chunk.ERROR, Chunk.ERROR_OFFSET]) {
    const found = decodeErrorChunk(data, type);
    if (found === undefined || (found.offset !== undefined && !Number.isSafeInteger(found.offset))) continue;
    const message = encodeString(found.message, data.length);
    const back = new Uint8Array(errorChunkBytes(message.length, found.offset !== undefined));
    encodeErrorChunk(viewOf(back), 0, COOKIE, found.error, message, found.offset);
    requireSame(back.subarray(CHUNK_HEADER_BYTES), data, 'error chunk');
  }
}

function text(data: Uint8Array): void {
  const found = decodeString(data);
  if (found === undefined) return;
  requireSame(encodeString(found, data.length), data, 'string');
  const cut = encodeString(found, Math.floor(data.length / 2));
  requireThat(decodeString(cut) !== undefined && cut.length <= data.length / 2, 'a cut string is one');
}
