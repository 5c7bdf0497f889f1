/**
 * READ. Three ways: at most one piece, answered in one go (the hot one); a longer structured read, answered
 * chunk by chunk; a longer read that must be whole (simple reply, or DF), gathered before its header is sent,
 * since an error after the header could not be told.
 */
import {
  BLOCK_BYTES,
  HOLE_READ_BYTES_MIN,
  READ_PIECE_BYTES,
  SEND_EARLY_BYTES,
  SMALL_CHUNK_BYTES,
} from '../base/limits.js';
import type { MaybePromise } from '../device/block-device.js';
import type { Chunk } from './chunk-pool.js';
import { wireErrorOf } from './errno.js';
import { gatherRead, pieceLength } from './gather-read.js';
import type { Session } from './session.js';
import { CommandFlag } from './wire/constants.js';
import type { Request } from './wire/request.js';

/** False where it waits for memory: nothing was done. */
export function startRead(session: Session, request: Request): boolean {
  const { offset, length } = request;
  const { structured } = session.replies;
  const whole = !structured || (request.flags & CommandFlag.DF) !== 0;
  if (length === 0) {
    if (structured) session.replies.none(request);
    else session.replies.ok(request);
    return true;
  }
  const pieceBytes = whole ? READ_PIECE_BYTES : session.host.share.pieceBytes;
  if (!whole && (length > pieceBytes || hasHoles(session, offset, length))) {
    startStream(session, request);
    return true;
  }
  if (length > pieceBytes) return gatherRead(session, request);
  if (readPiece(session, request, offset, length, true, false) !== SHORT_OF_MEMORY) return true;
  if (whole) {
    session.host.waitForMemory(1);
    return false;
  }
  startStream(session, request);
  return true;
}

/** A stream has one piece under way at a time, so that is what it counts for. */
function startStream(session: Session, request: Request): void {
  const own = { ...request };
  session.track(streamRead(session, own), session.host.share.pieceBytes, undefined, (error) => {
    if (error !== undefined) session.fail(own, error);
  });
}

const SHORT_OF_MEMORY = 'short of memory';
const SHORT_PIECE_BYTES = SMALL_CHUNK_BYTES - BLOCK_BYTES;

/** True where [offset, offset + length), a piece at most, is worth telling in parts. Small reads are not asked about. */
function hasHoles(session: Session, offset: number, length: number): boolean {
  if (length < HOLE_READ_BYTES_MIN) return false;
  try {
    const [first] = session.device.extents(offset, length, 1);
    return first !== undefined && (first.hole || first.length < length);
  } catch {
    // The read itself will say what is wrong.
    return false;
  }
}

/**
 * Reads one piece and queues its reply: true when that is done, or a promise of it. False where the device
 * refused; the client has been told then, and gets no more for this request.
 */
function readPiece(
  session: Session,
  request: Request,
  offset: number,
  length: number,
  done: boolean,
  owed: boolean,
): MaybePromise<boolean> | typeof SHORT_OF_MEMORY {
  const { output, replies } = session;
  const header = replies.headerBytes;
  const total = header + length;
  const at = output.reserve(total, owed);
  if (at < 0) return SHORT_OF_MEMORY;
  const { chunk } = output;
  let result: MaybePromise<void>;
  try {
    result = session.device.read(chunk.arena, at + header, offset, length);
  } catch (error) {
    output.unreserve(chunk, at, total);
    session.fail(request, wireErrorOf(error));
    return false;
  }
  if (result !== undefined)
    return finishLater(session, { ...request }, result, chunk, at, offset, length, done);
  replies.header(chunk, at, request, done, offset, length);
  output.commit(chunk, at, total);
  session.counters.bytesRead += length;
  if (output.unsentBytes >= SEND_EARLY_BYTES) session.host.flushEarly();
  return true;
}

function finishLater(
  session: Session,
  request: Request,
  result: Promise<void>,
  chunk: Chunk,
  at: number,
  offset: number,
  length: number,
  done: boolean,
): Promise<boolean> {
  return new Promise((resolve) => {
    session.track(result, length, chunk, (error) => {
      const { output, replies } = session;
      const total = replies.headerBytes + length;
      resolve(error === undefined);
      if (error !== undefined || !session.host.open) {
        output.unreserve(chunk, at, total);
        if (error !== undefined) session.fail(request, error);
        return;
      }
      replies.header(chunk, at, request, done, offset, length);
      output.commit(chunk, at, total);
      session.counters.bytesRead += length;
    });
  });
}

/**
 * A structured read in parts: holes as holes, data in pieces, at the pace at which the client takes them. Where
 * memory is short the pieces are small, and each waits until the client has taken the one before.
 */
async function streamRead(session: Session, request: Request): Promise<void> {
  const { host } = session;
  const end = request.offset + request.length;
  let at = request.offset;
  let short = false;
  while (at < end) {
    // Room that is there is used at once: after an await another stream may have taken it.
    const room = host.whenPendingAtMost(short ? 0 : host.share.bytesUnsent);
    if (room !== undefined) {
      await room;
      continue;
    }
    if (!host.open) return;
    const piece = pieceLength(at, end - at, short ? SHORT_PIECE_BYTES : host.share.pieceBytes);
    const extent = nextExtent(session, request, at, piece, end - at);
    if (extent === undefined) return;
    if (extent.hole) {
      session.replies.hole(request, at + extent.length === end, at, extent.length);
      at += extent.length;
      continue;
    }
    const { length } = extent;
    const result = readPiece(session, request, at, length, at + length === end, short);
    if (result === SHORT_OF_MEMORY) {
      short = true;
      // A hole may have been told just now, and what waits for it to leave is all that would send it.
      if (session.output.unsentBytes > 0) host.flushEarly();
      continue;
    }
    if (!(await result)) return;
    // What the last wait for the device has queued goes out before the next one.
    if (session.output.unsentBytes > 0) host.flushEarly();
    short = false;
    at += length;
  }
}

/**
 * The run at `at`, or undefined after telling the client what is wrong. Of data no more than a piece is looked at, which may be
 * in many places; a hole is known whole.
 */
function nextExtent(
  session: Session,
  request: Request,
  at: number,
  piece: number,
  left: number,
): { hole: boolean; length: number } | undefined {
  try {
    const { device } = session;
    const [first] = device.extents(at, piece, 1);
    if (first === undefined || first.length <= 0) return { hole: false, length: piece };
    if (!first.hole || first.length < piece)
      return { hole: first.hole, length: Math.min(first.length, piece) };
    const [whole] = device.extents(at, left, 1);
    return { hole: true, length: Math.min(whole?.length ?? piece, left) };
  } catch (error) {
    session.fail(request, wireErrorOf(error));
    return undefined;
  }
}
