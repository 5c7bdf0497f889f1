import type { Clock } from '../base/clock.js';
import { isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import { SEGMENT_RESERVED_SLOTS } from '../base/limits.js';
import { SEGMENT_KIND_HEAD } from '../segment/format.js';
import type { Segment } from '../segment/segment.js';
import type { SegmentWriter, WriterContext } from '../segment/segment-writer.js';
import type { SegmentFactory } from './segment-factory.js';

export interface HeadSegmentsOptions {
  readonly factory: SegmentFactory;
  readonly writer: WriterContext;
  readonly clock: Clock;
  readonly segmentSlots: number;
  /** Puts an end mark into a segment that is left before it is full; false where it must wait for a buffer. */
  endEarly(writer: SegmentWriter): boolean;
  /** The disk is full: try to free space; true if a retry is worth it. */
  reclaim(): Promise<boolean>;
  onFailure(error: unknown): void;
}

/** After the disk was found full, writers are told so at once for this long. */
const NO_SPACE_MEMORY_MS = 100;
/** Rounds of reclaiming that one writer waits for. */
const RECLAIM_ROUNDS_MAX = 16;

/** The open segment of the log and the one prepared to follow it; what happens at a segment's end and on a full disk. */
export class HeadSegments {
  readonly #options: HeadSegmentsOptions;
  readonly #reservedSlots: number;
  readonly #sealing = new Map<SegmentWriter, Promise<void>>();
  #open: SegmentWriter | undefined;
  #openIsReserve = false;
  #next: SegmentWriter | undefined;
  #nextIsReserve = false;
  #preparing: Promise<void> | undefined;
  #preparingId = 0;
  #noSpaceUntil = Number.NEGATIVE_INFINITY;
  #reclaiming: Promise<boolean> | undefined;

  constructor(options: HeadSegmentsOptions) {
    this.#options = options;
    this.#reservedSlots = Math.min(SEGMENT_RESERVED_SLOTS, Math.floor(options.segmentSlots / 8));
  }

  get open(): SegmentWriter | undefined {
    return this.#open;
  }

  /** The segment that is prepared, or being prepared, to follow the open one (0: none). */
  get preparedId(): number {
    return this.#next?.segment.id ?? this.#preparingId;
  }

  /** Where user writes end in the open segment: its last slots are kept for unmaps unless another segment is ready.
   *  A segment made of the reserve takes none. */
  get limit(): number {
    const { segmentSlots } = this.#options;
    if (this.#openIsReserve) return 0;
    return this.#next === undefined ? segmentSlots - this.#reservedSlots : segmentSlots;
  }

  /** True where user writes need a segment that is not there yet. */
  get exhausted(): boolean {
    const atEnd = this.#open === undefined || this.#open.position >= this.limit;
    return atEnd && this.#next === undefined;
  }

  /** The open segment with room for user writes, after switching to the prepared one where it is due. */
  forWrites(): SegmentWriter | undefined {
    if (this.#open !== undefined && this.#open.position < this.limit) return this.#open;
    if (this.#next === undefined) {
      this.#prepareInBackground();
      return undefined;
    }
    if (this.#open !== undefined && !this.#open.full && !this.#options.endEarly(this.#open)) return undefined;
    this.#switchTo(this.#next);
    return this.#open;
  }

  /** The open segment, its reserved slots included, or the next one. */
  forUnmaps(): SegmentWriter | undefined {
    if (this.#open !== undefined && !this.#open.full) return this.#open;
    if (this.#next !== undefined) this.#switchTo(this.#next);
    return this.#open !== undefined && !this.#open.full ? this.#open : undefined;
  }

  /** Leaves every segment that is not under this DEK: what is written from then on is. */
  async moveTo(dekId: number, whenBufferFree: () => Promise<void>): Promise<void> {
    const foreign = (writer: SegmentWriter | undefined): boolean =>
      writer !== undefined && writer.segment.dekId !== dekId;
    for (;;) {
      await this.#preparing?.catch(() => undefined); // Its failure is told to whoever needs the segment.
      if (!foreign(this.#open) && !foreign(this.#next)) return;
      // One that is prepared already belongs to the chain: it is opened and left.
      if (this.#next === undefined) await this.waitForNext(true);
      else if (this.#open !== undefined && !this.#open.full && !this.#options.endEarly(this.#open))
        await whenBufferFree();
      else this.#switchTo(this.#next);
    }
  }

  #switchTo(next: SegmentWriter): void {
    const old = this.#open;
    this.#open = next;
    this.#openIsReserve = this.#nextIsReserve;
    this.#next = undefined;
    if (old !== undefined) this.#seal(old);
    this.#prepareInBackground();
  }

  #seal(writer: SegmentWriter): void {
    const sealing = writer.seal().catch((error: unknown) => this.#options.onFailure(error));
    this.#sealing.set(writer, sealing);
    void sealing.then(() => this.#sealing.delete(writer));
  }

  #prepareInBackground(): void {
    if (this.#preparing !== undefined || this.#options.clock.monotonic() < this.#noSpaceUntil) return;
    this.#prepare(false).catch(() => undefined); // Whoever needs the segment asks again and sees the error.
  }

  /** Prepares the next segment; shared by all who wait. Rejects with ENOSPC where there is no room for one. */
  #prepare(urgent: boolean): Promise<void> {
    if (this.#next !== undefined) return Promise.resolve();
    if (this.#preparing !== undefined) return this.#preparing;
    const { factory, writer } = this.#options;
    const previous = this.#open?.segment.id ?? 0;
    this.#preparingId = factory.nextSegmentId;
    this.#preparing = factory
      .create(SEGMENT_KIND_HEAD, previous, urgent ? 'all' : 'none', writer)
      .then((next) => {
        this.#next = next;
        this.#nextIsReserve = urgent;
        this.#noSpaceUntil = Number.NEGATIVE_INFINITY;
      })
      .catch((error: unknown) => {
        if (!isSealbdError(error)) this.#options.onFailure(error);
        throw error;
      })
      .finally(() => {
        this.#preparing = undefined;
        this.#preparingId = 0;
      });
    return this.#preparing;
  }

  /** Waits until there is a next segment. `urgent` work may take the reserve; other work waits while space comes free. */
  async waitForNext(urgent: boolean): Promise<void> {
    if (!urgent && this.#options.clock.monotonic() < this.#noSpaceUntil) {
      throw new SealbdError('ENOSPC', 'no space for another segment');
    }
    for (let rounds = 0; ; rounds++) {
      try {
        return await this.#prepare(urgent);
      } catch (error) {
        if (!isSealbdError(error, 'ENOSPC')) throw error;
        // The attempt that failed may have been another's, without the reserve.
        if (urgent) return await this.#prepare(true);
        // What a round frees may go to the reserve, or to compaction, first: it is worth another while it frees.
        if (rounds < RECLAIM_ROUNDS_MAX && (await this.#reclaim())) continue;
        this.#noSpaceUntil = this.#options.clock.monotonic() + NO_SPACE_MEMORY_MS;
        throw error;
      }
    }
  }

  /** One round of reclaiming for all who wait: rounds of their own would take the room from each other. */
  #reclaim(): Promise<boolean> {
    this.#reclaiming ??= this.#options
      .reclaim()
      .catch((error: unknown) => {
        this.#options.writer.log.warn({ reason: messageOf(error) }, 'no space could be reclaimed');
        return false;
      })
      .finally(() => {
        this.#reclaiming = undefined;
      });
    return this.#reclaiming;
  }

  /** True while the segment is open, prepared, or being sealed. */
  uses(segment: Segment): boolean {
    for (const writer of this.#sealing.keys()) if (writer.segment === segment) return true;
    return this.#open?.segment === segment || this.#next?.segment === segment;
  }

  /** Seals the open segment and gives up the prepared one, which is returned. */
  async close(): Promise<SegmentWriter | undefined> {
    await this.#preparing?.catch(() => undefined); // Its failure is of no interest any more.
    if (this.#open !== undefined) this.#seal(this.#open);
    await Promise.all(this.#sealing.values());
    this.#open = undefined;
    const unused = this.#next;
    this.#next = undefined;
    return unused;
  }
}
