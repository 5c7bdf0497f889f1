import { SEGMENT_SLOTS } from '../base/limits.js';
import type { SegmentKeyHandle } from '../native/addon.js';
import type { StoreFile } from '../store/store.js';
import type { AppendBuffer } from './append-buffer.js';
import type { SegmentKind, SuiteId } from './format.js';

/** What the key of a segment and its place in the map depend on. */
export interface SegmentIdentity {
  /** The small number that names the segment in slot addresses while it lives. */
  readonly index: number;
  readonly id: number;
  readonly kind: SegmentKind;
  readonly suite: SuiteId;
  readonly dekId: number;
  readonly originUuid: Uint8Array;
  readonly salt: Uint8Array;
}

/** A segment of a volume, in whatever state. */
export class Segment implements SegmentIdentity {
  readonly index: number;
  readonly id: number;
  readonly kind: SegmentKind;
  readonly suite: SuiteId;
  readonly dekId: number;
  readonly originUuid: Uint8Array;
  readonly salt: Uint8Array;

  /** Positions spent so far. */
  slots: number;
  /** Slots that the map names. */
  live = 0;
  /** Slots that snapshots and pins name, counted once for each of them. */
  held = 0;
  /** No more slots will be written. */
  sealed: boolean;
  /** Why its slots can't be read at all (its file is missing or too short), where that is so. */
  lost: string | undefined;
  /** Reads under way: the file must stay as it is until they end. */
  pins = 0;
  /** Slots that have not reached the file yet, or not all of them, in position order. */
  readonly buffers: AppendBuffer[] = [];

  // Owned by SegmentHandles.
  file: StoreFile | undefined;
  key: SegmentKeyHandle | undefined;
  recentlyUsed = false;

  constructor(identity: SegmentIdentity, slots: number, sealed: boolean) {
    this.index = identity.index;
    this.id = identity.id;
    this.kind = identity.kind;
    this.suite = identity.suite;
    this.dekId = identity.dekId;
    this.originUuid = identity.originUuid;
    this.salt = identity.salt;
    this.slots = slots;
    this.sealed = sealed;
  }

  slotAddress(position: number): number {
    return this.index * SEGMENT_SLOTS + position;
  }

  /** The buffer that still holds `position`, if one does. */
  bufferOf(position: number): AppendBuffer | undefined {
    for (let i = this.buffers.length - 1; i >= 0; i--) {
      if (this.buffers[i].holds(position)) return this.buffers[i];
    }
    return undefined;
  }
}
