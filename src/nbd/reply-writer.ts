/** Whole replies without payload, in the form that the client negotiated. */

import type { Chunk } from './chunk-pool.js';
import type { WireError } from './errno.js';
import type { ReplyBuffer } from './reply-buffer.js';
import { encodeString } from './wire/bytes.js';
import {
  CHUNK_FLAG_DONE,
  CHUNK_HEADER_BYTES,
  Chunk as ChunkType,
  DATA_CHUNK_HEADER_BYTES,
  Errno,
  HOLE_CHUNK_BYTES,
  SIMPLE_REPLY_BYTES,
} from './wire/constants.js';
import {
  type Cookie,
  encodeChunkHeader,
  encodeDataHeader,
  encodeErrorChunk,
  encodeHole,
  encodeSimpleReply,
  errorChunkBytes,
} from './wire/reply.js';
import type { Request } from './wire/request.js';

const MESSAGE_BYTES_MAX = 512;

export class ReplyWriter {
  readonly output: ReplyBuffer;
  readonly structured: boolean;

  constructor(output: ReplyBuffer, structured: boolean) {
    this.output = output;
    this.structured = structured;
  }

  /** Bytes before the data of a READ. */
  get headerBytes(): number {
    return this.structured ? DATA_CHUNK_HEADER_BYTES : SIMPLE_REPLY_BYTES;
  }

  /** Writes the header of a READ whose data is in place behind it. */
  header(chunk: Chunk, at: number, cookie: Cookie, done: boolean, offset: number, length: number): void {
    if (this.structured) encodeDataHeader(chunk.arena.view, at, cookie, done, offset, length);
    else encodeSimpleReply(chunk.arena.view, at, cookie, Errno.OK);
  }

  /** Success of a command that has no payload in its reply; the short form is allowed in both modes. */
  ok(cookie: Cookie): void {
    const at = this.output.reserve(SIMPLE_REPLY_BYTES, true);
    encodeSimpleReply(this.output.chunk.arena.view, at, cookie, Errno.OK);
    this.output.commit(this.output.chunk, at, SIMPLE_REPLY_BYTES);
  }

  /** Success of a structured READ of no bytes. */
  none(cookie: Cookie): void {
    const at = this.output.reserve(CHUNK_HEADER_BYTES, true);
    encodeChunkHeader(this.output.chunk.arena.view, at, cookie, ChunkType.NONE, CHUNK_FLAG_DONE, 0);
    this.output.commit(this.output.chunk, at, CHUNK_HEADER_BYTES);
  }

  hole(cookie: Cookie, done: boolean, offset: number, length: number): void {
    const at = this.output.reserve(HOLE_CHUNK_BYTES, true);
    encodeHole(this.output.chunk.arena.view, at, cookie, done, offset, length);
    this.output.commit(this.output.chunk, at, HOLE_CHUNK_BYTES);
  }

  /** The last word on a request. The device's offset is told where it lies inside the request. */
  error(request: Request, error: WireError): void {
    if (!this.structured) {
      const at = this.output.reserve(SIMPLE_REPLY_BYTES, true);
      encodeSimpleReply(this.output.chunk.arena.view, at, request, error.errno);
      this.output.commit(this.output.chunk, at, SIMPLE_REPLY_BYTES);
      return;
    }
    const message = encodeString(error.message, MESSAGE_BYTES_MAX);
    const where = error.deviceOffset ?? -1;
    const inside = where >= request.offset && where < request.offset + request.length;
    const bytes = errorChunkBytes(message.length, inside);
    const at = this.output.reserve(bytes, true);
    const offset = inside ? where : undefined;
    encodeErrorChunk(this.output.chunk.arena.view, at, request, error.errno, message, offset);
    this.output.commit(this.output.chunk, at, bytes);
  }
}
