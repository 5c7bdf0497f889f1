/** How large the files are that a volume allocates before it needs them. */
import { addon } from '../native/addon.js';
import { segmentFileBytes } from '../segment/format.js';
import { mapFileBytesMax } from './map-runs.js';
import { reserveBytes, type SparePoolOptions } from './spare-pool.js';
import { defaultTuning, TAIL_MAX_FACTOR, type VolumeTuning } from './tuning.js';

export function fileSizes(
  tuning: VolumeTuning,
): Pick<SparePoolOptions, 'segmentBytes' | 'mapBytes' | 'sparesMax' | 'reserveMax'> {
  return {
    segmentBytes: segmentFileBytes(tuning.segmentSlots),
    mapBytes: mapFileBytesMax(tuning.checkpointSlots * TAIL_MAX_FACTOR),
    sparesMax: tuning.sparesMax,
    reserveMax: tuning.reserveSegments,
  };
}

/** Bytes that a volume of this size keeps for a full disk. One that is made is not made without them. */
export function reserveBytesOf(sizeBytes: number, tuning: Partial<VolumeTuning>): number {
  return reserveBytes(fileSizes({ ...defaultTuning(sizeBytes, addon.cpuSelected()), ...tuning }));
}
