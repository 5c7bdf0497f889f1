import type { MaybePromise } from '../base/maybe-promise.js';
import type { Arena } from '../native/arena.js';

export type { MaybePromise } from '../base/maybe-promise.js';

/** A run of the device with one allocation state. `length` in bytes. */
export interface Extent {
  readonly length: number;
  /** Nothing is stored there. A hole reads as zeros. */
  readonly hole: boolean;
}

/** What looking at a map may cost: how many steps are left. */
export interface StepBudget {
  left: number;
}

/**
 * What the NBD server drives. Offsets and lengths are bytes, need no alignment, and were validated by the
 * caller against `sizeBytes`. Data lives in arenas: memory of the addon, outside the JavaScript heap.
 *
 * Every method either throws or rejects with a SealbdError whose code is a device code (EIO, ENOSPC, EINVAL,
 * EPERM, ENOTSUP, ENOMEM, ESHUTDOWN). The range that a method was given belongs to it until it returns, or
 * until its promise settles.
 */
export interface BlockDevice {
  readonly name: string;
  /** Free text for NBD_INFO_DESCRIPTION. */
  readonly description: string;
  /** May change while clients are attached (online resize): read it for every request. */
  readonly sizeBytes: number;
  readonly readOnly: boolean;

  read(dst: Arena, dstOffset: number, offset: number, length: number): MaybePromise<void>;
  /** Acknowledged data is not durable before a `flush` that starts after it. */
  write(src: Arena, srcOffset: number, offset: number, length: number): MaybePromise<void>;
  /** Makes every write, trim and zero acknowledged before this call durable, from whatever connection. */
  flush(): Promise<void>;
  /** Rounds inward to whole blocks; those read as zeros afterwards. */
  trim(offset: number, length: number): MaybePromise<void>;
  /** The exact range reads as zeros afterwards. Whole blocks are unmapped. */
  zero(offset: number, length: number): MaybePromise<void>;
  /**
   * At least one extent, the first at `offset`, adjacent ones differ; may cover less than `length`. Ends where `steps` has
   * none left, and takes off what it took, which may be a few too many.
   */
  extents(offset: number, length: number, extentsMax: number, steps?: StepBudget): Extent[];

  /** Registers a client; `onClose` is called when the device goes away and the client must be dropped. */
  attach(onClose: (reason: string) => void): () => void;
}
