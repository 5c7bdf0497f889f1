/**
 * CACHE: a READ whose bytes nobody gets. What was read is in the page cache afterwards, and was authentic. It has one chunk of
 * the memory of all clients, and waits for it as a READ does.
 */
import { BLOCK_BYTES, CACHE_BYTES_MAX, SMALL_CHUNK_BYTES } from '../base/limits.js';
import type { Chunk } from './chunk-pool.js';
import { pieceLength, readAll } from './gather-read.js';
import type { Session } from './session.js';
import type { Request } from './wire/request.js';

/** False where it waits for memory: nothing was done. */
export function startCache(session: Session, shared: Request): boolean {
  const request = { ...shared };
  if (request.length === 0) {
    session.replies.ok(request);
    return true;
  }
  const { pool } = session.host;
  const chunk =
    request.length > SMALL_CHUNK_BYTES - 2 * BLOCK_BYTES ? pool.takeLarge() : pool.takeSmall(false);
  if (chunk === undefined) {
    session.host.waitForMemory(1);
    return false;
  }
  session.track(readAway(session, request, chunk), chunk.sizeBytes, undefined, (error) => {
    chunk.release();
    if (error === undefined) session.succeed(request, false);
    else session.fail(request, error);
  });
  return true;
}

/** Each piece over the one before, in whole blocks: a part of one would be copied, and nobody wants the copy. */
async function readAway(session: Session, { offset, length }: Request, chunk: Chunk): Promise<void> {
  const last = offset + Math.min(length, CACHE_BYTES_MAX);
  const end = Math.min(Math.ceil(last / BLOCK_BYTES) * BLOCK_BYTES, session.device.sizeBytes);
  const pieces = [];
  for (let at = Math.floor(offset / BLOCK_BYTES) * BLOCK_BYTES; at < end; ) {
    const piece = { chunk, at: chunk.start, offset: at, length: pieceLength(at, end - at, chunk.sizeBytes) };
    pieces.push(piece);
    at += piece.length;
  }
  await readAll(session, pieces);
}
