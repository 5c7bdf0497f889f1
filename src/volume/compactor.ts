import { type Clock, sleep } from '../base/clock.js';
import { errnoOf, isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import { forEachLimited } from '../base/limited.js';
import { ARENA_CHUNK_BYTES, BLOCK_BYTES, SLOT_BYTES, SYNCS_AT_ONCE_MAX } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import { type KeyHandle, RUN_OK } from '../native/addon.js';
import { Arena } from '../native/arena.js';
import { BUFFER_SLOTS } from '../segment/append-buffer.js';
import { readSlotMeta, SEGMENT_KIND_MOVED, SLOT_KIND_DATA, slotOffset } from '../segment/format.js';
import type { Segment } from '../segment/segment.js';
import type { SegmentHandles } from '../segment/segment-handles.js';
import type { SegmentWriter, WriterContext } from '../segment/segment-writer.js';
import type { StoreFile } from '../store/store.js';
import type { BlockMap } from './block-map.js';
import type { Relocation } from './relocation.js';
import type { SegmentFactory } from './segment-factory.js';
import { readIndexLbas } from './segment-index.js';
import type { SegmentTable } from './segment-table.js';
import type { ReserveClaim } from './spare-pool.js';
import type { VolumeKeys } from './volume-keys.js';

export interface CompactorOptions {
  readonly map: BlockMap;
  readonly table: SegmentTable;
  readonly handles: SegmentHandles;
  readonly factory: SegmentFactory;
  readonly writer: WriterContext;
  readonly cipher: CipherPool;
  readonly deks: ReadonlyMap<number, KeyHandle>;
  readonly keys: VolumeKeys;
  readonly clock: Clock;
  readonly log: Logger;
  readonly segmentSlots: number;
  readonly garbageRatio: number;
  /** Segments that something else writes or must keep as they are. */
  isBusy(segment: Segment): boolean;
  /** Grows with every client request: work is stretched while it moves. */
  foregroundRequests(): number;
  /** The map names the block at `to` instead of `from` from now on. */
  onMoved(lba: number, from: number, to: number): void;
  onGrown(segment: Segment): void;
  /** The volume takes no more writes. */
  failed(): boolean;
  onFailure(error: unknown): void;
}

/** Segments fuller than this are not worth rewriting, even when space is short. */
const LIVE_RATIO_MAX = 0.95;
/** Idle time for each unit of work while clients are active: compaction then takes a quarter of one thread. */
const FOREGROUND_STRETCH = 3;

export interface RewritePace {
  readonly signal?: AbortSignal;
  readonly onChunk?: () => void;
  /** What new segments may take of the reserve. */
  readonly claim: ReserveClaim;
}

/** How a round goes about its work. */
interface Pace extends RewritePace {
  /** Clients wait for it: it does not give way to them. */
  readonly urgent: boolean;
}

/** What reads answer where the medium, or the file on it, is bad. */
const UNREADABLE = ['EIO', 'ENOENT', 'ENODATA', 'EUCLEAN', 'EBADMSG'];

interface LiveSlot {
  readonly position: number;
  readonly lba: number;
  readonly sequence: number;
  /** Index of the slot in the chunk. */
  readonly at: number;
}

/** A segment that is being emptied, and memory for a part of it: as it is stored, and opened. */
interface Work {
  readonly victim: Segment;
  readonly file: StoreFile;
  /** What its index says of each slot; undefined where that can't be read. */
  readonly lbas: Float64Array | undefined;
  readonly claim: ReserveClaim;
  readonly source: Arena;
  readonly plain: Arena;
}

/**
 * Copies the live slots of mostly dead segments into new segments, under new salts, with their sequences, so that the
 * old files can go. A moved slot counts only through a checkpoint: until one names it, the source stays (a crash finds
 * the source), so compaction needs no log of its own.
 */
export class Compactor {
  readonly #options: CompactorOptions;
  /** Segments with slots that don't authenticate: they stay, so that the loss stays visible as EIO. */
  readonly #damaged = new Set<Segment>();
  readonly #dirty = new Set<SegmentWriter>();
  #writer: SegmentWriter | undefined;
  #victim: Segment | undefined;
  #working: Promise<boolean> | undefined;
  #rewriting = false;
  /** What the rewriting under way moves for snapshots. */
  #relocation: Relocation | undefined;
  /** Somebody waits for the space that the work under way frees. */
  #hurry = false;
  #stopped = false;
  movedBlocks = 0;

  constructor(options: CompactorOptions) {
    this.#options = options;
  }

  /** Compacts in the background while the dead share is above the limit. */
  kick(afterRound: () => Promise<void>): void {
    if (this.#working !== undefined || this.#stopped || this.#garbageRatio() <= this.#options.garbageRatio)
      return;
    this.round(false)
      .then(async (moved) => {
        if (!moved || this.#stopped) return;
        await afterRound();
        this.kick(afterRound);
      })
      .catch((error: unknown) => this.#options.log.error({ reason: messageOf(error) }, 'compaction failed'));
  }

  /** Compacts the emptiest segments, up to a new segment's worth; false where none is worth it. */
  round(urgent: boolean): Promise<boolean> {
    // Who waits for space must not wait for work that gives way to clients.
    if (urgent && this.#rewriting) this.#hurry = true;
    this.#working ??= this.#round(() => this.#mostlyDead(), this.#options.segmentSlots, {
      urgent,
      // Compaction is what frees space: on a full disk it may use the reserve.
      claim: 'all-but-one',
    }).finally(() => {
      this.#working = undefined;
    });
    return this.#working;
  }

  /** Moves everything that these segments hold for the map or for snapshots, of those that can be moved now; false where there was nothing to do. */
  async rewrite(segments: readonly Segment[], relocation: Relocation, pace: RewritePace): Promise<boolean> {
    while (this.#working !== undefined) await this.#working.catch(() => undefined); // Told to who started it.
    if (this.#stopped) throw new SealbdError('ESHUTDOWN', 'the volume is closed');
    this.#rewriting = true;
    this.#relocation = relocation;
    this.#working = this.#rewrite(segments, { ...pace, urgent: false }).finally(() => {
      this.#working = undefined;
      this.#rewriting = false;
      this.#relocation = undefined;
      this.#hurry = false;
    });
    return this.#working;
  }

  async #rewrite(segments: readonly Segment[], pace: Pace): Promise<boolean> {
    if (this.#writer !== undefined && !this.#isSealing(this.#writer.segment)) await this.#sealWriter();
    return this.#round(
      () => segments.filter((segment) => this.#isMovable(segment)),
      Number.POSITIVE_INFINITY,
      pace,
    );
  }

  /** Its blocks can't be moved: they do not authenticate or can not be read, or the file is gone. */
  isStuck(segment: Segment): boolean {
    const isNeeded = segment.live > 0 || this.#options.table.isHeld(segment);
    return isNeeded && (this.#damaged.has(segment) || segment.lost !== undefined);
  }

  #isSealing(segment: Segment): boolean {
    return segment.dekId === this.#options.keys.sealing.id;
  }

  async #round(victims: () => readonly Segment[], blocksMax: number, pace: Pace): Promise<boolean> {
    const before = this.movedBlocks;
    let chosen = 0;
    try {
      for (const victim of victims()) {
        if (this.#stopped || pace.signal?.aborted || chosen >= blocksMax) break;
        if (this.#rewriting && this.#hurry && chosen > 0) break;
        const blocks = this.#blocksToMove(victim);
        if (blocks === 0 || this.#isGone(victim) || this.#options.isBusy(victim)) continue;
        chosen += blocks;
        await this.#compact(victim, pace);
      }
    } catch (error) {
      // What was moved before the disk was full counts: a checkpoint lets go of its sources.
      if (!isSealbdError(error, 'ENOSPC') || this.movedBlocks === before) throw error;
    }
    return chosen > 0;
  }

  #mostlyDead(): Segment[] {
    const worth = [...this.#options.table.all()].filter((segment) => {
      // Moving what is live of a segment that a snapshot holds would free nothing.
      if (this.#options.table.isHeld(segment)) return false;
      return segment.live <= segment.slots * LIVE_RATIO_MAX && this.#isMovable(segment);
    });
    return worth.sort((a, b) => a.live / a.slots - b.live / b.slots);
  }

  /** Let go of since it was chosen: a snapshot that alone held it was deleted meanwhile. */
  #isGone(segment: Segment): boolean {
    return this.#options.table.byIndex(segment.index) !== segment;
  }

  #blocksToMove(segment: Segment): number {
    return segment.live + (this.#relocation?.blocksOf(segment) ?? 0);
  }

  /** Whether the map names the slot, or a snapshot does that this work is for. */
  #isNamed(victim: Segment, position: number, lba: number): boolean {
    if (this.#options.map.get(lba) === victim.slotAddress(position)) return true;
    return this.#relocation?.names(victim, position) === true;
  }

  #isMovable(segment: Segment): boolean {
    return (
      segment.sealed &&
      segment.lost === undefined &&
      this.#blocksToMove(segment) > 0 &&
      segment.buffers.length === 0 &&
      !this.#damaged.has(segment) &&
      !this.uses(segment) &&
      !this.#options.isBusy(segment)
    );
  }

  #garbageRatio(): number {
    let slots = 0;
    let live = 0;
    for (const segment of this.#options.table.all()) {
      if (!segment.sealed || this.#options.table.isHeld(segment)) continue;
      slots += segment.slots;
      live += segment.live;
    }
    // One segment's worth of dead slots is never worth a round.
    return slots - live < this.#options.segmentSlots ? 0 : (slots - live) / slots;
  }

  async #compact(victim: Segment, { urgent, signal, onChunk, claim }: Pace): Promise<void> {
    const { handles, deks } = this.#options;
    const [source, plain] = [new Arena(ARENA_CHUNK_BYTES), new Arena(ARENA_CHUNK_BYTES)];
    victim.pins++;
    this.#victim = victim;
    try {
      const file = await handles.file(victim);
      const lbas = await readIndexLbas(victim, file, deks);
      const work = { victim, file, lbas, claim, source, plain };
      for (let from = 0; from < victim.slots && !this.#stopped && !signal?.aborted; from += BUFFER_SLOTS) {
        const started = this.#options.clock.monotonic();
        const requests = this.#options.foregroundRequests();
        await this.#chunk(work, from, Math.min(BUFFER_SLOTS, victim.slots - from));
        const busy = this.#options.foregroundRequests() !== requests && !urgent && !this.#hurry;
        const worked = this.#options.clock.monotonic() - started;
        onChunk?.();
        if (busy) await sleep(this.#options.clock, worked * FOREGROUND_STRETCH);
      }
    } catch (error) {
      this.#noteUnreadable(victim, error);
    } finally {
      // This wipes them too.
      source.free();
      plain.free();
      this.#victim = undefined;
      victim.pins--;
    }
  }

  async #chunk(work: Work, from: number, slots: number): Promise<void> {
    const { victim, file, lbas, source, plain } = work;
    if (lbas !== undefined && !this.#anyLive(victim, from, slots, lbas)) return;
    const bytes = source.bytes.subarray(0, slots * SLOT_BYTES);
    const read = await this.#read(victim, file, bytes, slotOffset(from));
    if (read === undefined) return;
    const valid = new Uint8Array(slots);
    const status = await this.#options.cipher.run({
      op: 'scan',
      key: this.#options.handles.key(victim),
      dst: plain.ref(0),
      src: source.ref(0),
      blocks: slots,
      position: from,
      valid,
    });
    if (status !== RUN_OK) throw new Error('the key of this volume was taken away');
    if (read < bytes.length) valid.fill(0, Math.floor(read / SLOT_BYTES));
    if (this.#isDamaged(victim, from, valid, lbas)) this.#damaged.add(victim);
    await this.#move(work, this.#liveSlots(work, from, valid));
  }

  /** Undefined where the medium does not give the bytes: the rest of the segment may be better. */
  async #read(victim: Segment, file: StoreFile, bytes: Uint8Array, at: number): Promise<number | undefined> {
    try {
      return await file.read(bytes, at);
    } catch (error) {
      this.#noteUnreadable(victim, error);
      return undefined;
    }
  }

  /** One bad segment does not keep the others from being moved. Rethrows what is not the medium's fault. */
  #noteUnreadable(victim: Segment, error: unknown): void {
    if (!UNREADABLE.some((code) => errnoOf(error) === code) && !isSealbdError(error, 'INTEGRITY'))
      throw error;
    if (!this.#damaged.has(victim))
      this.#options.log.error({ segment: victim.id, reason: messageOf(error) }, 'a segment can not be read');
    this.#damaged.add(victim);
  }

  #anyLive(victim: Segment, from: number, slots: number, lbas: Float64Array): boolean {
    for (let i = 0; i < slots; i++) {
      const lba = lbas[from + i];
      if (lba >= 0 && this.#isNamed(victim, from + i, lba)) return true;
    }
    return false;
  }

  /** True where a slot that is live, or may be, did not authenticate. */
  #isDamaged(victim: Segment, from: number, valid: Uint8Array, lbas: Float64Array | undefined): boolean {
    for (let i = 0; i < valid.length; i++) {
      if (valid[i] !== 0) continue;
      if (lbas === undefined) return true;
      if (lbas[from + i] >= 0 && this.#isNamed(victim, from + i, lbas[from + i])) return true;
    }
    return false;
  }

  #liveSlots({ victim, source }: Work, from: number, valid: Uint8Array): LiveSlot[] {
    const live: LiveSlot[] = [];
    for (let at = 0; at < valid.length; at++) {
      if (valid[at] === 0) continue;
      const meta = readSlotMeta(source.bytes, at * SLOT_BYTES);
      if (meta.kind !== SLOT_KIND_DATA || !this.#isNamed(victim, from + at, meta.lba)) continue;
      live.push({ position: from + at, lba: meta.lba, sequence: meta.sequence, at });
    }
    return live;
  }

  async #move(work: Work, live: readonly LiveSlot[]): Promise<void> {
    let next = 0;
    while (next < live.length) {
      const writer = await this.#openWriter(work.claim);
      const capacity = writer.capacity(this.#options.segmentSlots);
      if (capacity === 0) {
        await this.#options.writer.buffers.whenFree();
        if (this.#stopped || this.#options.failed())
          throw new SealbdError('ESHUTDOWN', 'compaction was ended');
        continue;
      }
      next += this.#moveRun(work, writer, live, next, capacity);
    }
  }

  /** Moves live slots that follow each other in every respect, as one run; returns how many were dealt with. */
  #moveRun(
    { victim, plain }: Work,
    writer: SegmentWriter,
    live: readonly LiveSlot[],
    from: number,
    max: number,
  ): number {
    const first = live[from];
    if (!this.#isNamed(victim, first.position, first.lba)) return 1; // Overwritten meanwhile.
    let blocks = 1;
    while (from + blocks < live.length && blocks < max) {
      const { position, lba, sequence, at } = live[from + blocks];
      const follows =
        lba === first.lba + blocks && sequence === first.sequence + blocks && at === first.at + blocks;
      if (!follows || !this.#isNamed(victim, position, lba)) break;
      blocks++;
    }
    const to = writer.segment.slotAddress(writer.position);
    const src = plain.ref(first.at * BLOCK_BYTES);
    const sealed = writer.append({ src, lba: first.lba, blocks, sequence: first.sequence, durable: -1 });
    if (sealed instanceof Promise) throw new Error('moved runs are sealed inline');
    this.#options.onGrown(writer.segment);
    this.#dirty.add(writer);
    for (let i = 0; i < blocks; i++)
      this.#moved(victim, first.position + i, first.lba + i, writer.segment, to + i);
    this.movedBlocks += blocks;
    return blocks;
  }

  /** One block is at another place as well: whoever named the old one names that. */
  #moved(victim: Segment, position: number, lba: number, target: Segment, to: number): void {
    const from = victim.slotAddress(position);
    if (this.#options.map.move(lba, from, to)) {
      this.#options.onMoved(lba, from, to);
      victim.live--;
      target.live++;
    }
    this.#relocation?.note(victim, position, target, to);
  }

  async #openWriter(claim: ReserveClaim): Promise<SegmentWriter> {
    const open = this.#writer;
    if (open !== undefined && !open.full && this.#isSealing(open.segment)) return open;
    await this.#sealWriter();
    const { factory, writer } = this.#options;
    try {
      this.#writer = await factory.create(SEGMENT_KIND_MOVED, 0, claim, writer);
    } catch (error) {
      if (!isSealbdError(error)) this.#options.onFailure(error);
      throw error;
    }
    return this.#writer;
  }

  async #sealWriter(): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    try {
      await writer?.seal();
    } catch (error) {
      this.#options.onFailure(error);
      throw error;
    }
  }

  /** Makes every slot moved so far durable. */
  async sync(): Promise<void> {
    const writers = [...this.#dirty];
    const open = this.#writer;
    try {
      for (const writer of writers) await writer.writeOut();
      await forEachLimited(writers, SYNCS_AT_ONCE_MAX, (writer) => writer.sync());
    } catch (error) {
      this.#options.onFailure(error);
      throw error;
    }
    // The open writer may have got slots meanwhile.
    for (const writer of writers) if (writer !== open) this.#dirty.delete(writer);
  }

  /** True while compaction reads, writes or syncs this segment. */
  uses(segment: Segment): boolean {
    if (this.#victim === segment || this.#writer?.segment === segment) return true;
    for (const writer of this.#dirty) if (writer.segment === segment) return true;
    return false;
  }

  /** Ends the work under way and seals the open segment. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#options.writer.buffers.wakeAll();
    await this.#working?.catch(() => undefined); // Logged where it was started.
    if (!this.#options.failed()) await this.#sealWriter();
  }
}
