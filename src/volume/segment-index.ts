import { errnoOf } from '../base/errors.js';
import type { KeyHandle } from '../native/addon.js';
import { decodeIndex, indexBytes, SLOT_KIND_DATA, slotOffset } from '../segment/format.js';
import type { Segment } from '../segment/segment.js';
import { verifyMetadataMac } from '../segment/segment-mac.js';
import type { StoreFile } from '../store/store.js';

/**
 * The lba of each position of a sealed segment, -1 where the slot holds no data block; or undefined where the segment
 * has no index that authenticates (it was cut by a crash, say): then the slots themselves must be read.
 */
export async function readIndexLbas(
  segment: Segment,
  file: StoreFile,
  deks: ReadonlyMap<number, KeyHandle>,
): Promise<Float64Array | undefined> {
  const bytes = new Uint8Array(indexBytes(segment.slots));
  if ((await file.read(bytes, slotOffset(segment.slots))) !== bytes.length) return undefined;
  try {
    const { entry, covered, mac } = decodeIndex(bytes, segment.slots);
    if (!verifyMetadataMac(deks, segment, covered, mac)) return undefined;
    const lbas = new Float64Array(segment.slots);
    for (let position = 0; position < segment.slots; position++) {
      const { lba, kind } = entry(position);
      lbas[position] = kind === SLOT_KIND_DATA ? lba : -1;
    }
    return lbas;
  } catch (error) {
    if (errnoOf(error) !== 'INTEGRITY') throw error;
    return undefined;
  }
}
