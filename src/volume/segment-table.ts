import { SealbdError } from '../base/errors.js';
import { SEGMENT_SLOTS, SEGMENTS_MAX } from '../base/limits.js';
import type { Segment } from '../segment/segment.js';

/** Segments, and the blocks in each, that one snapshot or pin needs. */
export type Holds = ReadonlyMap<Segment, number>;

/** The live segments of a volume by index, and how many of their slots the map names. */
export class SegmentTable {
  readonly #byIndex: (Segment | undefined)[] = [];
  readonly #freeIndexes: number[] = [];
  /** Added or grown since the last cut. */
  readonly changed = new Set<Segment>();
  #count = 0;
  /** Segments with lower ids are kept, since a damaged snapshot may need any of them. */
  heldBelowId = 0;

  /** An index that no segment of the last durable checkpoint has. */
  takeIndex(): number {
    const free = this.#freeIndexes.pop();
    if (free !== undefined) return free;
    if (this.#byIndex.length >= SEGMENTS_MAX) throw new SealbdError('ENOSPC', `${SEGMENTS_MAX} segments`);
    this.#byIndex.push(undefined);
    return this.#byIndex.length - 1;
  }

  /** Gives an index back whose segment was never added, or is in no durable checkpoint any more. */
  freeIndex(index: number): void {
    this.#freeIndexes.push(index);
  }

  add(segment: Segment): void {
    while (this.#byIndex.length <= segment.index) {
      this.#byIndex.push(undefined);
    }
    this.#byIndex[segment.index] = segment;
    this.#count++;
  }

  remove(segment: Segment): void {
    this.#byIndex[segment.index] = undefined;
    this.changed.delete(segment);
    this.#count--;
  }

  /** After loading: every index below the highest that no segment has is free. */
  rebuildFreeIndexes(): void {
    this.#freeIndexes.length = 0;
    for (let index = this.#byIndex.length - 1; index >= 0; index--) {
      if (this.#byIndex[index] === undefined) this.#freeIndexes.push(index);
    }
  }

  get count(): number {
    return this.#count;
  }

  *all(): IterableIterator<Segment> {
    for (const segment of this.#byIndex) if (segment !== undefined) yield segment;
  }

  byIndex(index: number): Segment | undefined {
    return this.#byIndex[index];
  }

  /** The segment that a slot address names. */
  ofSlot(slot: number): Segment {
    const segment = this.#byIndex[Math.floor(slot / SEGMENT_SLOTS)];
    if (segment === undefined) throw new SealbdError('EIO', `slot ${slot} is in no segment of this volume`);
    return segment;
  }

  /** `blocks` slots from `slot` on are named by the map from now on. */
  addLive(slot: number, blocks: number): void {
    this.#eachSegment(slot, blocks, 1);
  }

  /** ... are not named by the map any more. */
  readonly dropLive = (slot: number, blocks: number): void => {
    this.#eachSegment(slot, blocks, -1);
  };

  /** What the map names now. */
  liveHolds(): Holds {
    const holds = new Map<Segment, number>();
    for (const segment of this.all()) if (segment.live > 0) holds.set(segment, segment.live);
    return holds;
  }

  hold(holds: Holds): void {
    for (const [segment, blocks] of holds) segment.held += blocks;
  }

  release(holds: Holds): void {
    for (const [segment, blocks] of holds) segment.held -= blocks;
  }

  /** Something beside the map needs it as it is. */
  isHeld(segment: Segment): boolean {
    return segment.held > 0 || segment.id < this.heldBelowId;
  }

  #eachSegment(slot: number, blocks: number, sign: 1 | -1): void {
    let at = slot;
    const end = slot + blocks;
    while (at < end) {
      const segmentEnd = (Math.floor(at / SEGMENT_SLOTS) + 1) * SEGMENT_SLOTS;
      const until = Math.min(end, segmentEnd);
      this.ofSlot(at).live += sign * (until - at);
      at = until;
    }
  }
}
