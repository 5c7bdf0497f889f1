/** The header of a segment, as far as a copy of the segment needs it. */
import { isSealbdError } from '../base/errors.js';
import { SEGMENT_SLOTS } from '../base/limits.js';
import type { KeyHandle } from '../native/addon.js';
import { decodeHeader, encodeHeader } from '../segment/format.js';
import type { SegmentIdentity } from '../segment/segment.js';
import { metadataMac, verifyMetadataMac } from '../segment/segment-mac.js';
import { isSameSegment } from './chain-map.js';

/** Whether these bytes are the header of this very segment. */
export function isHeaderOf(
  bytes: Uint8Array,
  segment: SegmentIdentity,
  keys: ReadonlyMap<number, KeyHandle>,
): boolean {
  try {
    const { header, covered, mac } = decodeHeader(bytes);
    return (
      isSameSegment({ ...header, index: segment.index }, segment) &&
      verifyMetadataMac(keys, segment, covered, mac)
    );
  } catch (error) {
    if (isSealbdError(error, 'INTEGRITY')) return false;
    throw error;
  }
}

/** One for a segment whose own header is damaged. Nothing depends on what it does not know: the segment is not of the log's tail. */
export function freshHeader(segment: SegmentIdentity, keys: ReadonlyMap<number, KeyHandle>): Uint8Array {
  const fields = { ...segment, previousHeadId: 0, createdAtMs: 0, slotsMax: SEGMENT_SLOTS };
  const { bytes, covered } = encodeHeader(fields);
  bytes.set(metadataMac(keys)(segment, covered), covered.length);
  return bytes;
}
