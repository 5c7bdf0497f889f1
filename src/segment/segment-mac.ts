import { addon, type KeyHandle } from '../native/addon.js';
import { segmentContext } from './format.js';
import type { Segment } from './segment.js';
import { dekOf } from './segment-handles.js';

const LABEL = 'sealbd/v1/segment-meta';

type Keyed = Pick<Segment, 'suite' | 'dekId' | 'originUuid' | 'id' | 'salt'>;

/** MAC of a segment's header or index. `deks` holds the public key of DEK id 0 for `none` segments. */
export function metadataMac(
  deks: ReadonlyMap<number, KeyHandle>,
): (segment: Keyed, data: Uint8Array) => Buffer {
  return (segment, data) => addon.keyMac(dekOf(segment, deks), LABEL, segmentContext(segment), data);
}

export function verifyMetadataMac(
  deks: ReadonlyMap<number, KeyHandle>,
  segment: Keyed,
  data: Uint8Array,
  mac: Uint8Array,
): boolean {
  return addon.keyMacVerify(dekOf(segment, deks), LABEL, segmentContext(segment), data, mac);
}
