/** BLOCK_STATUS in the `base:allocation` context. */
import { EXTENTS_PER_REPLY_MAX } from '../base/limits.js';
import type { Extent } from '../device/block-device.js';
import { wireErrorOf } from './errno.js';
import { ALLOCATION_CONTEXT_ID } from './negotiation.js';
import type { Session } from './session.js';
import { CommandFlag, STATE_HOLE, STATE_ZERO } from './wire/constants.js';
import { blockStatusBytes, encodeBlockStatus, type WireExtent } from './wire/reply.js';
import type { Request } from './wire/request.js';

/** False where it is to wait for its turn, or for memory: nothing was done. */
export function answerBlockStatus(session: Session, request: Request): boolean {
  const steps = session.host.extentSteps;
  if (steps === undefined) {
    session.host.waitForExtents();
    return false;
  }
  const extentsMax = (request.flags & CommandFlag.REQ_ONE) !== 0 ? 1 : EXTENTS_PER_REPLY_MAX;
  let extents: WireExtent[];
  try {
    const found = session.device.extents(request.offset, request.length, extentsMax, steps);
    extents = toWire(found, request.length, extentsMax);
  } catch (error) {
    session.fail(request, wireErrorOf(error));
    return true;
  }
  const bytes = blockStatusBytes(extents.length);
  const at = session.output.reserve(bytes, false);
  if (at < 0) {
    session.host.waitForMemory(1);
    return false;
  }
  const { chunk } = session.output;
  encodeBlockStatus(chunk.arena.view, at, request, ALLOCATION_CONTEXT_ID, extents);
  session.output.commit(chunk, at, bytes);
  return true;
}

/** Clipped to the request, which also keeps lengths within 32 bits. */
export function toWire(extents: readonly Extent[], length: number, extentsMax: number): WireExtent[] {
  const wire: WireExtent[] = [];
  let left = length;
  for (const extent of extents) {
    if (left === 0 || wire.length === extentsMax) break;
    const part = Math.min(extent.length, left);
    if (part <= 0) continue;
    wire.push({ length: part, state: extent.hole ? STATE_HOLE | STATE_ZERO : 0 });
    left -= part;
  }
  // A device that told nothing about the range is taken to hold data there.
  return wire.length > 0 ? wire : [{ length, state: 0 }];
}
