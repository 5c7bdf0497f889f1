import { BLOCK_BYTES, MAP_BYTES_MAX, SEGMENT_SLOTS } from '../base/limits.js';
import { segmentFileBytes } from '../segment/format.js';

/** Slots of the tail at which writers wait, as a multiple of those that start a checkpoint: it bounds recovery. */
export const TAIL_MAX_FACTOR = 3;

/** What an operator, a benchmark or a test may turn. Defaults are for a 64 MiB segment. */
export interface VolumeTuning {
  /** Slots of a new segment. */
  readonly segmentSlots: number;
  /** Buffers (2 MiB each) of slots on their way to the file. */
  readonly appendBuffers: number;
  /** Longest time that an acknowledged write stays in memory alone. */
  readonly bufferAgeMs: number;
  /** Slots written since the last checkpoint that start the next one; at TAIL_MAX_FACTOR times as many, writers wait. */
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

/** Never: runs are at most one append buffer (2 MiB) long. Cold reads and background work go to the pool regardless. */
const NEVER_BYTES = 64 << 20;

/**
 * Where the pool is worth its trip, by kernel: `npm run bench -- --group crossover`. With VAES a mebibyte is sealed in
 * 0.1 ms, which is less than the trip costs; without AES instructions a few blocks take longer than the trip.
 */
const CROSSOVER_BYTES: Readonly<Record<string, { readonly seal: number; readonly read: number }>> = {
  vaes512: { seal: NEVER_BYTES, read: NEVER_BYTES },
  vaes256: { seal: NEVER_BYTES, read: NEVER_BYTES },
  aesni: { seal: NEVER_BYTES, read: 1 << 20 },
  portable: { seal: 32 << 10, read: 32 << 10 },
};

/** Segments that a checkpoint lets go of wait as spares for about two checkpoints' worth of writing. */
const SPARE_CHECKPOINTS = 2;
/** Spares take at most this part of the volume's size. */
const SPARE_SHARE = 4;
const SPARES_MIN = 2;

export function defaultTuning(sizeBytes: number, kernel: string): VolumeTuning {
  const share = Math.ceil(sizeBytes / BLOCK_BYTES / SEGMENT_SHARE);
  const segmentSlots = Math.min(SEGMENT_SLOTS, Math.max(SEGMENT_SLOTS_MIN, share));
  const checkpointSlots = 49_152;
  const crossover = CROSSOVER_BYTES[kernel] ?? CROSSOVER_BYTES.portable;
  const wanted = Math.ceil((SPARE_CHECKPOINTS * checkpointSlots) / segmentSlots);
  const allowed = Math.floor(sizeBytes / SPARE_SHARE / segmentFileBytes(segmentSlots));
  return {
    segmentSlots,
    appendBuffers: 8,
    bufferAgeMs: 50,
    checkpointSlots,
    checkpointIntervalMs: 60_000,
    poolSealBytes: crossover.seal,
    poolReadBytes: crossover.read,
    garbageRatio: 0.25,
    sparesMax: Math.max(SPARES_MIN, Math.min(wanted, allowed)),
    reserveSegments: 2,
    handlesMax: 4096,
    mapBytesMax: MAP_BYTES_MAX,
  };
}
