/** Opens volumes over one cipher pool, tuned by the configuration. */
import { availableParallelism } from 'node:os';
import { SLOT_BYTES } from '../base/limits.js';
import { CipherPool } from '../cipher/cipher-pool.js';
import { reserveBytesOf } from '../volume/file-sizes.js';
import type { VolumeTuning } from '../volume/tuning.js';
import { Volume } from '../volume/volume.js';
import type { TuningConfig } from './config-schema.js';
import type { Engine } from './engine.js';

const POOL_THREADS_DEFAULT_MAX = 4;

export interface ClosableEngine extends Engine {
  readonly cipher: CipherPool;
  /** Bytes that a volume of this size takes beside its blocks, at least. */
  reserveBytes(sizeBytes: number): number;
  /** After the last volume was stopped. */
  close(): Promise<void>;
}

export function openEngine(config: TuningConfig): ClosableEngine {
  const threads = config.pool_threads ?? Math.min(availableParallelism(), POOL_THREADS_DEFAULT_MAX);
  const cipher = new CipherPool({ threads });
  const tuning = tuningOf(config);
  return {
    cipher,
    reserveBytes: (sizeBytes) => reserveBytesOf(sizeBytes, tuning),
    open: (options) => Volume.open({ ...options, cipher, tuning }),
    close: () => cipher.destroy(),
  };
}

/** What the configuration says of tuning, in the terms of the engine; the rest is left to its defaults. */
export function tuningOf(config: TuningConfig): Partial<VolumeTuning> {
  const { checkpoint_after: checkpointBytes } = config;
  const tuning = {
    poolSealBytes: config.pool_seal_from,
    poolReadBytes: config.pool_read_from,
    bufferAgeMs: config.buffer_age,
    checkpointSlots:
      checkpointBytes === undefined ? undefined : Math.max(1, Math.floor(checkpointBytes / SLOT_BYTES)),
    checkpointIntervalMs: config.checkpoint_interval,
    mapBytesMax: config.map_memory_max,
    segmentSlots: config.segment_slots,
    garbageRatio: config.garbage_ratio,
    sparesMax: config.spares,
    reserveSegments: config.reserve,
  };
  // A key that is undefined would override the engine's default.
  return Object.fromEntries(Object.entries(tuning).filter(([, value]) => value !== undefined));
}
