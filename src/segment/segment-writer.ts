import { type Clock, sleep } from '../base/clock.js';
import { messageOf, SealbdError } from '../base/errors.js';
import { BLOCK_BYTES } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { MaybePromise } from '../base/maybe-promise.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import type { SealJob } from '../cipher/jobs.js';
import { RUN_OK, type SegmentKeyHandle } from '../native/addon.js';
import type { StoreFile } from '../store/store.js';
import type { AppendBuffer, AppendBufferPool } from './append-buffer.js';
import { encodeIndex, SLOT_KIND_DATA, SLOT_KIND_EXTENTS, slotOffset } from './format.js';
import type { Segment } from './segment.js';
import type { metadataMac } from './segment-mac.js';

export interface WriterContext {
  readonly cipher: CipherPool;
  readonly buffers: AppendBufferPool;
  readonly clock: Clock;
  readonly log: Logger;
  /** Runs of at least this many bytes are sealed by the pool. */
  readonly poolSealBytes: number;
  /** A buffer could not be written. */
  onFailure(error: unknown): void;
  /** MAC of metadata under the segment's keys. */
  readonly mac: ReturnType<typeof metadataMac>;
}

export interface AppendRun {
  readonly src: number;
  readonly lba: number;
  readonly blocks: number;
  readonly sequence: number;
  /** Last sequence known durable, -1 for no claim. */
  readonly durable: number;
}

const WRITE_ATTEMPTS = 5;
const WRITE_RETRY_MS = 50;

/**
 * Appends slots to one new segment. Positions only grow: a position is spent the moment a run is given to
 * `append`, and what was sealed for it stays in its buffer, unchanged, until the kernel has taken it. So a write
 * that failed or came short is repeated with the identical bytes (contract 1).
 */
export class SegmentWriter {
  readonly segment: Segment;
  readonly slotsMax: number;
  readonly #file: StoreFile;
  readonly #key: SegmentKeyHandle;
  readonly #context: WriterContext;
  readonly #lbas: Float64Array;
  #buffer: AppendBuffer | undefined;
  /** Something was written that no sync covers yet. */
  #unsynced = false;
  #syncing: Promise<void> = Promise.resolve();
  /** The last write of a buffer. They follow one another: together they would queue for the lock of the same file. */
  #lastWrite: Promise<void> = Promise.resolve();

  constructor(
    segment: Segment,
    slotsMax: number,
    file: StoreFile,
    key: SegmentKeyHandle,
    context: WriterContext,
  ) {
    this.segment = segment;
    this.slotsMax = slotsMax;
    this.#file = file;
    this.#key = key;
    this.#context = context;
    this.#lbas = new Float64Array(slotsMax);
  }

  get position(): number {
    return this.segment.slots;
  }

  get full(): boolean {
    return this.segment.slots >= this.slotsMax;
  }

  /**
   * Blocks that `append` can take now, up to position `limit`; 0 where a buffer must become free first. The last buffer is for
   * those who ask for little: they would wait for all that others have buffered.
   */
  capacity(limit: number, much = false): number {
    const room = limit - this.segment.slots;
    if (room <= 0 || (much && this.#context.buffers.atLast)) return 0;
    if (this.#buffer === undefined) {
      this.#buffer = this.#context.buffers.take();
      if (this.#buffer === undefined) return 0;
      this.#buffer.start(this.segment.slots, this.slotsMax - this.segment.slots);
      this.segment.buffers.push(this.#buffer);
    }
    return Math.min(room, this.#buffer.capacity - this.#buffer.used);
  }

  /** Seals a run at the next positions. `run.blocks` is at most `capacity`. Done when the slots are ciphertext. */
  append(run: AppendRun): MaybePromise<void> {
    return this.#append(run, SLOT_KIND_DATA);
  }

  /** Seals one block of unmap entries. */
  appendUnmaps(src: number, sequence: number, durable: number): void {
    const done = this.#append({ src, lba: 0, blocks: 1, sequence, durable }, SLOT_KIND_EXTENTS);
    if (done instanceof Promise) throw new Error('a single block is sealed inline');
  }

  #append(run: AppendRun, kind: number): MaybePromise<void> {
    const buffer = this.#buffer;
    if (buffer === undefined || run.blocks > buffer.capacity - buffer.used) {
      throw new Error('append past the capacity');
    }
    const position = this.segment.slots;
    const job: SealJob = {
      op: 'seal',
      key: this.#key,
      dst: buffer.arena.ref(buffer.offsetOf(position)),
      src: run.src,
      blocks: run.blocks,
      position,
      lba: run.lba,
      sequence: run.sequence,
      durable: run.durable,
      kind,
    };
    this.#spend(buffer, run, kind);
    const pooled = kind === SLOT_KIND_DATA && run.blocks * BLOCK_BYTES >= this.#context.poolSealBytes;
    const done = pooled ? this.#sealInPool(buffer, job) : this.#sealInline(buffer, job);
    if (buffer.used === buffer.capacity) this.#release(buffer);
    return done;
  }

  #spend(buffer: AppendBuffer, run: AppendRun, kind: number): void {
    const position = this.segment.slots;
    for (let i = 0; i < run.blocks; i++) {
      this.#lbas[position + i] = kind === SLOT_KIND_DATA ? run.lba + i : -1;
    }
    this.segment.slots += run.blocks;
    buffer.used += run.blocks;
  }

  #sealInline(buffer: AppendBuffer, job: SealJob): void {
    try {
      checkSealed(this.#context.cipher.runInline(job, false));
    } catch (error) {
      buffer.unsealed = error;
      throw error;
    }
  }

  #sealInPool(buffer: AppendBuffer, job: SealJob): Promise<void> {
    const done = this.#context.cipher.run(job).then(checkSealed);
    buffer.sealing.add(done);
    done.then(
      () => buffer.sealing.delete(done),
      (error: unknown) => {
        // What the job should have written is undefined: the buffer must never reach the file.
        buffer.unsealed = error;
        buffer.sealing.delete(done);
      },
    );
    return done;
  }

  /** A full buffer goes out by itself. Where that fails for good, its slots will never be in the file. */
  #release(buffer: AppendBuffer): void {
    this.#buffer = undefined;
    this.#writeBuffer(buffer).catch((error: unknown) => this.#context.onFailure(error));
  }

  /** Everything appended before the call reaches the kernel. */
  async writeOut(): Promise<void> {
    await Promise.all(this.segment.buffers.map((buffer) => this.#writeBuffer(buffer)));
  }

  #writeBuffer(buffer: AppendBuffer): Promise<void> {
    const { used, use } = buffer;
    this.#lastWrite = this.#lastWrite.then(() => this.#writeUpTo(buffer, use, used));
    // Later writes fail with the same error; none of them may be an unhandled rejection.
    this.#lastWrite.catch(() => undefined);
    return this.#lastWrite;
  }

  async #writeUpTo(buffer: AppendBuffer, use: number, target: number): Promise<void> {
    // An earlier write may have finished the buffer, and somebody else may have it by now.
    if (buffer.use !== use || !this.segment.buffers.includes(buffer)) return;
    if (buffer.written < target) {
      await Promise.all(buffer.sealing);
      if (buffer.unsealed !== undefined) throw buffer.unsealed;
      const from = buffer.firstPosition + buffer.written;
      const bytes = buffer.arena.bytes.subarray(
        buffer.offsetOf(from),
        buffer.offsetOf(buffer.firstPosition + target),
      );
      await this.#write(bytes, slotOffset(from));
      buffer.written = target;
    }
    const whole =
      buffer.written === buffer.capacity || (this.segment.sealed && buffer.written === buffer.used);
    if (!whole) return;
    this.segment.buffers.splice(this.segment.buffers.indexOf(buffer), 1); // From here on, reads go to the file.
    await Promise.allSettled(buffer.reading);
    this.#context.buffers.release(buffer);
  }

  /** Repeats a failed write with the identical bytes, then gives up. */
  async #write(bytes: Uint8Array, position: number): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      this.#unsynced = true;
      try {
        await this.#file.write(bytes, position);
        // Again: a sync that ran meanwhile need not have seen these bytes.
        this.#unsynced = true;
        return;
      } catch (error) {
        const fields = { segment: this.segment.id, position, attempt, reason: messageOf(error) };
        this.#context.log.error(fields, 'segment write failed');
        if (attempt === WRITE_ATTEMPTS) throw error;
        await sleep(this.#context.clock, WRITE_RETRY_MS * attempt);
      }
    }
  }

  /** Makes what reached the kernel before the call durable. A failure here must never be retried: the kernel may have
   *  dropped the pages, and a later sync would claim a success that is none. */
  sync(): Promise<void> {
    this.#syncing = this.#syncing.then(async () => {
      if (!this.#unsynced) return;
      this.#unsynced = false;
      await this.#file.sync();
    });
    this.#syncing.catch(() => undefined); // Seen by the caller, and by every later one.
    return this.#syncing;
  }

  /** Ends the segment where it is: no position is spent after this. Slots and index reach the kernel. */
  async seal(): Promise<void> {
    this.segment.sealed = true;
    this.#buffer = undefined;
    await this.writeOut();
    const { bytes, covered } = encodeIndex(this.segment.slots, (position) => {
      const lba = this.#lbas[position];
      return lba < 0 ? { lba: 0, kind: SLOT_KIND_EXTENTS } : { lba, kind: SLOT_KIND_DATA };
    });
    bytes.set(this.#context.mac(this.segment, covered), covered.length);
    await this.#write(bytes, slotOffset(this.segment.slots));
    if (!this.full) await this.#file.truncate(slotOffset(this.segment.slots) + bytes.length);
  }
}

function checkSealed(status: number): void {
  if (status !== RUN_OK) throw new SealbdError('ESHUTDOWN', 'the key of this volume was taken away');
}
