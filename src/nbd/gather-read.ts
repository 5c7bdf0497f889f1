/** A long READ that is answered in one chunk or not at all: its memory is taken at once, its pieces read in turn. */
import { setImmediate } from 'node:timers/promises';
import { ARENA_CHUNK_BYTES, BLOCK_BYTES } from '../base/limits.js';
import type { Chunk } from './chunk-pool.js';
import type { Session } from './session.js';
import type { Request } from './wire/request.js';

interface Piece {
  readonly chunk: Chunk;
  /** Where the data goes, in the chunk's arena. */
  readonly at: number;
  readonly offset: number;
  readonly length: number;
}

/** False where it waits for memory: nothing was done. */
export function gatherRead(session: Session, shared: Request): boolean {
  const request = { ...shared };
  const header = session.replies.headerBytes;
  const count = Math.ceil((request.length + BLOCK_BYTES) / (ARENA_CHUNK_BYTES - BLOCK_BYTES));
  const chunks = session.host.pool.takeMany(count);
  if (chunks === undefined) {
    session.host.waitForMemory(count);
    return false;
  }
  const pieces = layOut(request, chunks, header);
  session.track(readAll(session, pieces), request.length, undefined, (error) => {
    if (error !== undefined) session.fail(request, error);
    else if (session.host.open) queue(session, request, pieces, header);
    for (const chunk of chunks) chunk.release();
  });
  return true;
}

/** The first piece leaves room for the header; all but the last end on a block boundary. */
function layOut(request: Request, chunks: readonly Chunk[], header: number): Piece[] {
  const pieces: Piece[] = [];
  let offset = request.offset;
  const end = request.offset + request.length;
  for (const chunk of chunks) {
    if (offset === end) break;
    const at = chunk.start + (pieces.length === 0 ? header : 0);
    let length = Math.min(end - offset, chunk.end - at);
    if (length < end - offset) length -= (offset + length) % BLOCK_BYTES;
    pieces.push({ chunk, at, offset, length });
    offset += length;
  }
  return pieces;
}

/** What the device does at once is done in steps too, so that others get their turn between them. */
export async function readAll(session: Session, pieces: readonly Piece[]): Promise<void> {
  for (const { chunk, at, offset, length } of pieces) {
    for (let done = 0; done < length; ) {
      if (offset + done > pieces[0].offset) await setImmediate();
      if (!session.host.open) return;
      const step = pieceLength(offset + done, length - done, session.host.share.pieceBytes);
      await session.device.read(chunk.arena, at + done, offset + done, step);
      done += step;
    }
  }
}

/** At most `bytesMax`, ending on a block boundary unless it is the last. */
export function pieceLength(offset: number, left: number, bytesMax: number): number {
  if (left <= bytesMax) return left;
  return bytesMax - ((offset + bytesMax) % BLOCK_BYTES);
}

function queue(session: Session, request: Request, pieces: readonly Piece[], header: number): void {
  const first = pieces[0];
  const start = first.at - header;
  session.replies.header(first.chunk, start, request, true, request.offset, request.length);
  session.output.enqueue(first.chunk, start, header + first.length);
  for (const { chunk, at, length } of pieces.slice(1)) session.output.enqueue(chunk, at, length);
  session.counters.bytesRead += request.length;
}
