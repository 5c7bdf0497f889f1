import { errnoOf, messageOf, SealbdError } from '../base/errors.js';
import type { MaybePromise } from '../base/maybe-promise.js';
import { addon, type KeyHandle, type SegmentKeyHandle } from '../native/addon.js';
import type { Store, StoreFile } from '../store/store.js';
import { segmentContext, segmentFileName } from './format.js';
import type { Segment } from './segment.js';

/**
 * Open files and expanded keys of segments, at most `limit` of them: a large volume has more segments than a
 * process may have descriptors or locked pages. Sealed, unpinned segments give theirs up (second chance).
 */
export class SegmentHandles {
  readonly #store: Store;
  readonly #deks: ReadonlyMap<number, KeyHandle>;
  readonly #limit: number;
  readonly #opening = new Map<Segment, Promise<StoreFile>>();
  readonly #held = new Set<Segment>();
  /** True while somebody still writes or syncs the segment: its file is the writer's. */
  isBusy: (segment: Segment) => boolean = () => false;

  constructor(store: Store, deks: ReadonlyMap<number, KeyHandle>, limit: number) {
    this.#store = store;
    this.#deks = deks;
    this.#limit = limit;
  }

  key(segment: Segment): SegmentKeyHandle {
    segment.recentlyUsed = true;
    if (segment.key === undefined) {
      segment.key = deriveSegmentKey(segment, this.#deks);
      this.#hold(segment);
    }
    return segment.key;
  }

  file(segment: Segment): MaybePromise<StoreFile> {
    segment.recentlyUsed = true;
    if (segment.file !== undefined) return segment.file;
    let opening = this.#opening.get(segment);
    if (opening === undefined) {
      opening = this.#open(segment);
      this.#opening.set(segment, opening);
    }
    return opening;
  }

  /** Takes over the file that a writer has open. */
  adopt(segment: Segment, file: StoreFile): void {
    segment.file = file;
    segment.recentlyUsed = true;
    this.#hold(segment);
  }

  /** Closes the file and wipes the key of a segment that nobody reads. */
  async drop(segment: Segment): Promise<void> {
    await this.#opening.get(segment)?.catch(() => undefined); // The opener has seen this error.
    this.#held.delete(segment);
    if (segment.key !== undefined) addon.segmentKeyRelease(segment.key);
    segment.key = undefined;
    const file = segment.file;
    segment.file = undefined;
    await file?.close();
  }

  async dropAll(): Promise<void> {
    for (const segment of [...this.#held]) await this.drop(segment);
  }

  async #open(segment: Segment): Promise<StoreFile> {
    segment.pins++;
    try {
      const file = await this.#store.open(segmentFileName(segment.id), 'read');
      segment.file = file;
      this.#hold(segment);
      return file;
    } finally {
      segment.pins--;
      this.#opening.delete(segment);
    }
  }

  #hold(segment: Segment): void {
    this.#held.add(segment);
    if (this.#held.size > this.#limit) this.#evict(segment);
  }

  #evict(keep: Segment): void {
    let looks = this.#held.size;
    for (const segment of this.#held) {
      if (this.#held.size <= this.#limit || looks-- === 0) return;
      // A set iterates in insertion order: moving an entry to the end gives it its second chance.
      this.#held.delete(segment);
      const busy = segment === keep || segment.pins > 0 || !segment.sealed || segment.buffers.length > 0;
      if (busy || segment.recentlyUsed || this.isBusy(segment)) {
        segment.recentlyUsed = false;
        this.#held.add(segment);
        continue;
      }
      if (segment.key !== undefined) addon.segmentKeyRelease(segment.key);
      segment.key = undefined;
      const file = segment.file;
      segment.file = undefined;
      // Nothing was written through a read handle: a failing close loses nothing.
      file?.close().catch(() => undefined);
    }
  }
}

export function deriveSegmentKey(
  segment: Pick<Segment, 'suite' | 'dekId' | 'originUuid' | 'id' | 'salt'>,
  deks: ReadonlyMap<number, KeyHandle>,
): SegmentKeyHandle {
  const context = segmentContext(segment);
  if (segment.suite === 0) return addon.segmentKeyDerive(null, 0, context);
  try {
    return addon.segmentKeyDerive(dekOf(segment, deks), segment.suite, context);
  } catch (error) {
    const code = errnoOf(error);
    if (code === 'KEY_MEMORY') throw new SealbdError('ENOMEM', messageOf(error), { cause: error });
    if (code !== 'KEY_REVOKED' && code !== 'KEY_STALE') throw error;
    throw new SealbdError('ESHUTDOWN', 'the key of this volume was taken away', { cause: error });
  }
}

/** The DEK that a segment names. */
export function dekOf(segment: { dekId: number }, deks: ReadonlyMap<number, KeyHandle>): KeyHandle {
  const dek = deks.get(segment.dekId);
  if (dek === undefined) throw new SealbdError('INTEGRITY', `no DEK ${segment.dekId} in this volume`);
  return dek;
}
