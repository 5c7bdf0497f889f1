import { BLOCK_BYTES, MAP_BYTES_MAX, SEGMENT_SLOTS } from '../base/limits.js';

/** What an operator, a benchmark or a test may turn. Defaults are for a 64 MiB segment. */
export interface VolumeTuning {
  /** Slots of a new segment. */
  readonly segmentSlots: number;
  /** Buffers (2 MiB each) of slots on their way to the file. */
  readonly appendBuffers: number;
  /** Longest time that an acknowledged write stays in memory alone. */
  readonly bufferAgeMs: number;
  /** Slots written since the last checkpoint that start the next one; at four times as many, writers wait. */
  readonly checkpointSlots: number;
  /** A volume that changed is checkpointed at least this often. */
  readonly checkpointIntervalMs: number;
  /** Runs of at least this many bytes are sealed by the pool. */
  readonly poolSealBytes: number;
  /** Runs of at least this many bytes are read and opened by the pool. */
  readonly poolReadBytes: number;
  /** Dead share of the sealed slots above which compaction runs. */
  readonly garbageRatio: number;
  /** Preallocated segment files kept for reuse. */
  readonly sparesMax: number;
  /** Preallocated segment files kept for work that must go on when the disk is full. */
  readonly reserveSegments: number;
  /** Open files and expanded keys. */
  readonly handlesMax: number;
  readonly mapBytesMax: number;
}

const SEGMENT_SLOTS_MIN = 1024;
/** A segment is at most this part of the volume, so that small volumes have small files. */
const SEGMENT_SHARE = 16;

export function defaultTuning(sizeBytes: number): VolumeTuning {
  const share = Math.ceil(sizeBytes / BLOCK_BYTES / SEGMENT_SHARE);
  return {
    segmentSlots: Math.min(SEGMENT_SLOTS, Math.max(SEGMENT_SLOTS_MIN, share)),
    appendBuffers: 8,
    bufferAgeMs: 50,
    checkpointSlots: 65_536,
    checkpointIntervalMs: 60_000,
    poolSealBytes: 1 << 20,
    poolReadBytes: 1 << 20,
    garbageRatio: 0.25,
    sparesMax: 4,
    reserveSegments: 2,
    handlesMax: 4096,
    mapBytesMax: MAP_BYTES_MAX,
  };
}
