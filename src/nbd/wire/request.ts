/**
 * A request of the transmission phase, 28 bytes:
 *
 *    0  magic   u32   0x25609513
 *    4  flags   u16
 *    6  type    u16
 *    8  cookie  u64   opaque, echoed in the reply
 *   16  offset  u64
 *   24  length  u32   payload of a WRITE follows
 */
import { getUint64, setUint64 } from './bytes.js';
import { MAGIC_REQUEST } from './constants.js';

export interface Request {
  flags: number;
  type: number;
  cookieHigh: number;
  cookieLow: number;
  offset: number;
  length: number;
}

export function emptyRequest(): Request {
  return { flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, offset: 0, length: 0 };
}

/** Fills `into` from the 28 bytes at `at`. False where the magic is wrong: the stream is out of step. */
export function decodeRequest(view: DataView, at: number, into: Request): boolean {
  if (view.getUint32(at) !== MAGIC_REQUEST) return false;
  into.flags = view.getUint16(at + 4);
  into.type = view.getUint16(at + 6);
  into.cookieHigh = view.getUint32(at + 8);
  into.cookieLow = view.getUint32(at + 12);
  into.offset = getUint64(view, at + 16);
  into.length = view.getUint32(at + 24);
  return true;
}

export function encodeRequest(view: DataView, at: number, request: Request): void {
  view.setUint32(at, MAGIC_REQUEST);
  view.setUint16(at + 4, request.flags);
  view.setUint16(at + 6, request.type);
  view.setUint32(at + 8, request.cookieHigh);
  view.setUint32(at + 12, request.cookieLow);
  setUint64(view, at + 16, request.offset);
  view.setUint32(at + 24, request.length);
}
