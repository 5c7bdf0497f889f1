import type { Clock, Timer } from '../base/clock.js';
import { isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import { forEachLimited } from '../base/limited.js';
import { BLOCK_BYTES, LARGE_REQUEST_BYTES_MIN, SEQUENCE_MAX, SYNCS_AT_ONCE_MAX } from '../base/limits.js';
import { Gather, type MaybePromise } from '../base/maybe-promise.js';
import { Arena } from '../native/arena.js';
import { type UnmapEntry, writeUnmaps } from '../segment/format.js';
import type { Segment } from '../segment/segment.js';
import type { SegmentWriter, WriterContext } from '../segment/segment-writer.js';
import { HeadSegments } from './head-segments.js';
import type { SegmentFactory } from './segment-factory.js';
import { UnmapQueue } from './unmap-queue.js';

export interface HeadLogOptions {
  readonly factory: SegmentFactory;
  readonly writer: WriterContext;
  readonly clock: Clock;
  readonly segmentSlots: number;
  readonly bufferAgeMs: number;
  /** Slots since the last cut at which writers wait for the checkpoint under way. */
  readonly tailSlotsMax: number;
  readonly lastSequence: number;
  /** `blocks` blocks from `lba` on now live at `slot`; called before they are sealed. May throw ENOMEM, changing nothing. */
  onMapped(lba: number, blocks: number, slot: number): void;
  /** The segment has got slots. */
  onGrown(segment: Segment): void;
  /** The disk is full: try to free space; true if a retry is worth it. */
  reclaim(): Promise<boolean>;
  /** Waits until the tail has become shorter. */
  whenTailShrinks(): Promise<void>;
  /** Something that can't be repaired in place went wrong: the volume takes no more writes. */
  onFailure(error: SealbdError): void;
}

export interface HeadCut {
  /** The open segment, and its slots so far. */
  readonly segment: Segment | undefined;
  readonly headSlots: number;
  /** The segment that is prepared, or being prepared, to follow it (0: none). */
  readonly preparedId: number;
  readonly lastSequence: number;
  readonly tailSlots: number;
}

/** What a write of these blocks must wait for, if anything. */
export type Conflict = (lba: number, blocks: number) => Promise<void> | undefined;
const noConflict: Conflict = () => undefined;

/** Of a write that leaves the last free buffer to smaller ones. */
const LARGE_RUN_BLOCKS = LARGE_REQUEST_BYTES_MIN / BLOCK_BYTES;

/** Why a segment could not be made that can be tried again. */
const RETRIED = ['ENOSPC', 'EIO', 'ENOMEM'] as const;

/** The place where new writes go: an open segment, a prepared one behind it, and the unmaps that wait to join. */
export class HeadLog {
  readonly #options: HeadLogOptions;
  readonly #unmaps = new UnmapQueue();
  readonly #scratch = new Arena(BLOCK_BYTES);
  readonly #segments: HeadSegments;
  /** Writers with slots that no sync covers yet; sealed ones leave after a sync. */
  readonly #dirty = new Set<SegmentWriter>();
  #lastSequence: number;
  #lastSlotSequence: number;
  #durableSequence: number;
  #tailSlots = 0;
  #ageTimer: Timer | undefined;
  #failure: SealbdError | undefined;

  constructor(options: HeadLogOptions) {
    this.#options = options;
    this.#segments = new HeadSegments({
      ...options,
      endEarly: (writer) => this.#endEarly(writer),
      onFailure: (error) => this.fail(error),
    });
    this.#lastSequence = options.lastSequence;
    this.#lastSlotSequence = options.lastSequence;
    this.#durableSequence = options.lastSequence;
  }

  /**
   * Writes blocks at `src`. Done when they are sealed in a buffer; durable after `commit`. `conflict` says what to wait
   * for before blocks may be written, should the write have to wait for room and the world change meanwhile.
   */
  append(
    src: Arena,
    srcOffset: number,
    lba: number,
    blocks: number,
    conflict: Conflict = noConflict,
  ): MaybePromise<void> {
    const gather = new Gather();
    let done = 0;
    while (done < blocks) {
      let run: number;
      try {
        run = Math.min(blocks - done, this.#capacity(lba + done, blocks - done));
      } catch (error) {
        // Runs before it may be under way: the memory of the write is theirs until they are done.
        gather.add(() => Promise.reject(error));
        break;
      }
      if (run === 0) return this.#appendLater(gather, src, srcOffset, lba, blocks, done, conflict);
      const at = done;
      done += run;
      if (!gather.add(() => this.#appendRun(src.ref(srcOffset + at * BLOCK_BYTES), lba + at, run))) break;
    }
    return gather.result();
  }

  async #appendLater(
    gather: Gather,
    src: Arena,
    srcOffset: number,
    lba: number,
    blocks: number,
    from: number,
    conflict: Conflict,
  ): Promise<void> {
    let done = from;
    try {
      while (done < blocks) {
        const at = done;
        const held = conflict(lba + at, blocks - at);
        if (held !== undefined) {
          await held;
          continue;
        }
        const run = Math.min(blocks - at, this.#capacity(lba + at, blocks - at));
        if (run === 0) await this.#room(lba + at, blocks - at);
        else if (!gather.add(() => this.#appendRun(src.ref(srcOffset + at * BLOCK_BYTES), lba + at, run)))
          break;
        done += run;
      }
    } catch (error) {
      gather.add(() => Promise.reject(error));
    }
    await gather.result();
  }

  /** Blocks from `lba` on that can be appended now; 0 where something must be awaited first (see `#room`). */
  #capacity(lba: number, blocks: number): number {
    if (this.#failure !== undefined) return 0;
    if (this.#tailSlots >= this.#options.tailSlotsMax) return 0;
    if (this.#unmaps.length > 0 && this.#unmaps.overlaps(lba, blocks) && !this.#emitNow()) return 0;
    const writer = this.#segments.forWrites();
    return writer === undefined ? 0 : writer.capacity(this.#segments.limit, blocks >= LARGE_RUN_BLOCKS);
  }

  /** Waits for whatever keeps `#capacity` at 0. Rejects where waiting won't help. */
  async #room(lba: number, blocks: number): Promise<void> {
    this.#check();
    if (this.#tailSlots >= this.#options.tailSlotsMax) return this.#options.whenTailShrinks();
    if (this.#unmaps.length > 0 && this.#unmaps.overlaps(lba, blocks)) return this.emitUnmaps();
    if (this.#segments.exhausted) return this.#segments.waitForNext(false);
    return this.#options.writer.buffers.whenFree();
  }

  #appendRun(src: number, lba: number, blocks: number): MaybePromise<void> {
    const writer = this.#segments.open;
    if (writer === undefined) throw new Error('append without an open segment');
    this.#checkSequence(blocks);
    this.#options.onMapped(lba, blocks, writer.segment.slotAddress(writer.position));
    const sequence = this.#lastSequence + 1;
    this.#spent(writer, blocks);
    const run = { src, lba, blocks, sequence, durable: this.#durableSequence };
    try {
      const done = writer.append(run);
      return done instanceof Promise ? done.catch((error: unknown) => this.#unsealed(error)) : done;
    } catch (error) {
      return this.#unsealed(error);
    }
  }

  /** The map names slots that hold nothing: the volume must not go on. */
  #unsealed(error: unknown): never {
    this.fail(error);
    throw error;
  }

  #spent(writer: SegmentWriter, slots: number): void {
    this.#options.onGrown(writer.segment);
    this.#lastSequence += slots;
    this.#lastSlotSequence = this.#lastSequence;
    this.#tailSlots += slots;
    this.#dirty.add(writer);
    this.#startAgeTimer();
  }

  /** What must be waited for before another unmap can be taken, if anything. It rejects where there is no room for it. */
  roomForUnmap(): Promise<void> | undefined {
    this.#check();
    return this.#unmaps.full && !this.#emitNow() ? this.emitUnmaps() : undefined;
  }

  /** Logs that blocks were unmapped. There is room for it (`roomForUnmap`), and the caller has changed the map. */
  unmap(lba: number, blocks: number): void {
    this.#checkSequence(1);
    this.#unmaps.push({ sequence: ++this.#lastSequence, lba, blocks });
    this.#startAgeTimer();
  }

  /** Marks the end of a segment that is left before it is full, so that replay goes on in the next one. */
  #endEarly(writer: SegmentWriter): boolean {
    if (writer.capacity(this.#options.segmentSlots) === 0) return false;
    this.#appendUnmapSlot(writer, []);
    return true;
  }

  /** Puts every waiting unmap into the log, if that needs no waiting. */
  #emitNow(): boolean {
    while (this.#unmaps.length > 0) {
      const writer = this.#segments.forUnmaps();
      if (writer === undefined || writer.capacity(this.#options.segmentSlots) === 0) return false;
      this.#appendUnmapSlot(writer, this.#unmaps.takeSlotful());
    }
    return true;
  }

  #appendUnmapSlot(writer: SegmentWriter, entries: readonly UnmapEntry[]): void {
    this.#checkSequence(1);
    writeUnmaps(this.#scratch.bytes, entries);
    const sequence = this.#lastSequence + 1;
    const durable = this.#durableSequence;
    this.#spent(writer, 1);
    try {
      writer.appendUnmaps(this.#scratch.ref(0), sequence, durable);
    } catch (error) {
      this.#unsealed(error);
    }
  }

  async emitUnmaps(): Promise<void> {
    while (!this.#emitNow()) {
      this.#check();
      if (this.#segments.forUnmaps() === undefined) await this.#segments.waitForNext(true);
      else await this.#options.writer.buffers.whenFree();
    }
  }

  /** The log goes on in segments under this DEK. */
  async moveTo(dekId: number): Promise<void> {
    this.#check();
    await this.#segments.moveTo(dekId, () => {
      this.#check();
      return this.#options.writer.buffers.whenFree();
    });
  }

  /** True where something acknowledged is not durable yet. */
  get dirty(): boolean {
    return this.#dirty.size > 0 || this.#unmaps.length > 0;
  }

  /** Makes everything acknowledged before the call durable. Not reentrant: the committer serialises. */
  async commit(): Promise<void> {
    this.#check();
    let noRoom: unknown;
    try {
      await this.emitUnmaps();
    } catch (error) {
      if (!isSealbdError(error, 'ENOSPC')) throw error;
      noRoom = error;
    }
    const target = this.#lastSlotSequence;
    const writers = [...this.#dirty];
    const { open } = this.#segments;
    try {
      for (const writer of writers) await writer.writeOut();
      await forEachLimited(writers, SYNCS_AT_ONCE_MAX, (writer) => writer.sync());
    } catch (error) {
      this.fail(error);
      throw error;
    }
    this.#check();
    this.#durableSequence = Math.max(this.#durableSequence, target);
    for (const writer of writers) {
      // A writer that was not open when the target was taken has got nothing since.
      if (writer !== open || this.#lastSlotSequence === target) this.#dirty.delete(writer);
    }
    // The slots are durable; the unmaps that wait are not.
    if (noRoom !== undefined) throw noRoom;
  }

  /** Sends what is buffered to the kernel, without waiting for the disk. */
  async writeOut(): Promise<void> {
    await this.emitUnmaps();
    for (const writer of [...this.#dirty]) await writer.writeOut();
  }

  #startAgeTimer(): void {
    if (this.#ageTimer !== undefined) return;
    this.#ageTimer = this.#options.clock.setTimeout(() => {
      this.#ageTimer = undefined;
      this.writeOut().catch((error: unknown) => {
        // A full disk keeps unmaps waiting, and a segment that could not be made can be tried again.
        if (RETRIED.some((code) => isSealbdError(error, code))) this.#startAgeTimer();
        else this.fail(error);
      });
    }, this.#options.bufferAgeMs);
  }

  /** The cut of a checkpoint: where the log stands now. */
  cut(): HeadCut {
    const cut = {
      segment: this.#segments.open?.segment,
      headSlots: this.#segments.open?.position ?? 0,
      preparedId: this.#segments.preparedId,
      lastSequence: this.#lastSequence,
      tailSlots: this.#tailSlots,
    };
    return cut;
  }

  /** The checkpoint of that cut is durable: its slots belong to the tail no more. */
  covered(cut: HeadCut): void {
    this.#tailSlots -= cut.tailSlots;
  }

  get tailSlots(): number {
    return this.#tailSlots;
  }

  /** True while the head still writes or syncs this segment. */
  uses(segment: Segment): boolean {
    for (const writer of this.#dirty) if (writer.segment === segment) return true;
    return this.#segments.uses(segment);
  }

  /** Seals the open segment and lets go of the prepared one; returns the latter's segment. Nothing may be appended
   *  afterwards. */
  async close(): Promise<SegmentWriter | undefined> {
    this.#ageTimer?.cancel();
    const unused = await this.#segments.close();
    this.#scratch.free();
    return unused;
  }

  /** The volume is gone: nothing happens by itself any more, and whoever waits is told. */
  abandon(): void {
    this.#ageTimer?.cancel();
    this.#failure ??= new SealbdError('ESHUTDOWN', 'the volume is closed');
    this.#options.writer.buffers.wakeAll();
  }

  get failed(): boolean {
    return this.#failure !== undefined;
  }

  fail(error: unknown): void {
    if (this.#failure !== undefined) return;
    const cause = error instanceof SealbdError && error.code === 'ESHUTDOWN' ? 'ESHUTDOWN' : 'EIO';
    this.#failure = new SealbdError(cause, `the volume failed: ${messageOf(error)}`, { cause: error });
    this.#options.writer.buffers.wakeAll();
    this.#options.onFailure(this.#failure);
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #checkSequence(slots: number): void {
    if (this.#lastSequence > SEQUENCE_MAX - slots - 1) throw new SealbdError('EIO', 'sequences are used up');
  }
}
