import { errnoOf, messageOf, SealbdError } from '../base/errors.js';
import { BLOCK_BYTES } from '../base/limits.js';
import { Gather, type MaybePromise } from '../base/maybe-promise.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import type { CipherJob, ReadManyJob } from '../cipher/jobs.js';
import { RUN_ERRNO_BASE, RUN_OK, RUN_REVOKED, RUN_WOULD_BLOCK } from '../native/addon.js';
import type { Arena } from '../native/arena.js';
import type { StoreFile } from '../store/store.js';
import type { AppendBuffer } from './append-buffer.js';
import { slotOffset } from './format.js';
import { ReadBatch } from './read-batch.js';
import type { Segment } from './segment.js';
import type { SegmentHandles } from './segment-handles.js';

/** A run of slots with consecutive lbas, and where its plaintext goes. */
export interface ReadRun {
  readonly segment: Segment;
  readonly position: number;
  readonly blocks: number;
  readonly lba: number;
  readonly dst: Arena;
  readonly dstOffset: number;
}

export interface ReaderOptions {
  /** Runs of at least this many bytes are read and opened by the pool. */
  readonly poolReadBytes: number;
  /** Told of every block that did not authenticate or could not be read. */
  onDamage(segment: Segment, position: number, lba: number, reason: string): void;
}

/** So many runs take several times as long as the trip to a thread of the pool. */
const POOL_RUNS_MIN = 128;

function manyJob({ values, count }: ReadBatch, first: number): ReadManyJob {
  return { op: 'read-many', runs: values, first, count, outcome: new Float64Array(1) };
}

/** Reads slots back: from the buffers of an open segment, from the page cache at once, from the disk by the pool. */
export class SegmentReader {
  readonly #handles: SegmentHandles;
  readonly #cipher: CipherPool;
  readonly #options: ReaderOptions;

  constructor(handles: SegmentHandles, cipher: CipherPool, options: ReaderOptions) {
    this.#handles = handles;
    this.#cipher = cipher;
    this.#options = options;
  }

  /** Plaintext of the run into `dst`. Throws EIO (with the device offset) where a block does not authenticate. */
  read(run: ReadRun): MaybePromise<void> {
    const { segment } = run;
    if (segment.lost !== undefined) throw this.#damage(run, 0, segment.lost);
    const gather = new Gather();
    for (let done = 0; done < run.blocks; ) {
      const part = this.#part(run, done);
      done += part.run.blocks;
      if (!gather.add(() => this.#partOf(part.run, part.buffer))) break;
    }
    return gather.result();
  }

  /** The same for many runs. Those that are short and can be read at once share calls of the addon. */
  readAll(runs: readonly ReadRun[]): MaybePromise<void> {
    const gather = new Gather();
    const batch = new ReadBatch(runs.length);
    for (const run of runs) {
      const { file } = run.segment;
      const alone = file === undefined || !this.#isPlain(run);
      if (!gather.add(() => (alone ? this.read(run) : batch.add(run, this.#handles.key(run.segment), file))))
        break;
    }
    gather.add(() => this.#batch(batch));
    return gather.result();
  }

  /** All of it is in the file, and it is short enough for the calling thread. */
  #isPlain({ segment, blocks }: ReadRun): boolean {
    const short = blocks * BLOCK_BYTES < this.#options.poolReadBytes;
    return short && segment.lost === undefined && segment.buffers.length === 0;
  }

  #batch(batch: ReadBatch): MaybePromise<void> {
    if (batch.count >= POOL_RUNS_MIN && this.#cipher.idle)
      return this.#batchInPool(batch).finally(() => batch.release());
    try {
      return this.#batchInline(batch);
    } finally {
      batch.release();
    }
  }

  #batchInline(batch: ReadBatch): MaybePromise<void> {
    const gather = new Gather();
    const { count } = batch;
    for (let first = 0; first < count; ) {
      const job = manyJob(batch, first);
      const failed = this.#cipher.runInline(job, true);
      if (failed === count || !gather.add(() => this.#settle(batch.runs[failed], job.outcome[0]))) break;
      first = failed + 1;
    }
    return gather.result();
  }

  async #batchInPool(batch: ReadBatch): Promise<void> {
    const { count } = batch;
    for (let first = 0; first < count; ) {
      const job = manyJob(batch, first);
      const failed = await this.#cipher.run(job);
      if (failed === count) break;
      await this.#settle(batch.runs[failed], job.outcome[0]);
      first = failed + 1;
    }
  }

  #partOf(run: ReadRun, buffer: AppendBuffer | undefined): MaybePromise<void> {
    return buffer === undefined ? this.#fromFile(run) : this.#fromBuffer(run, buffer);
  }

  /** The part of `run` from block `done` on that lies in one buffer, or in the file. */
  #part(run: ReadRun, done: number): { run: ReadRun; buffer: AppendBuffer | undefined } {
    const { buffers } = run.segment;
    if (buffers.length === 0) return { run, buffer: undefined };
    const position = run.position + done;
    const buffer = run.segment.bufferOf(position);
    let end = run.position + run.blocks;
    if (buffer !== undefined) {
      end = Math.min(end, buffer.endPosition);
    } else {
      // Buffers may leave in any order: the file's part ends where the next buffer starts.
      for (const other of buffers) {
        if (other.firstPosition > position) end = Math.min(end, other.firstPosition);
      }
    }
    if (done === 0 && end === run.position + run.blocks) return { run, buffer };
    const part = {
      ...run,
      position,
      blocks: end - position,
      lba: run.lba + done,
      dstOffset: run.dstOffset + done * BLOCK_BYTES,
    };
    return { run: part, buffer };
  }

  #fromBuffer(run: ReadRun, buffer: AppendBuffer): MaybePromise<void> {
    const job: CipherJob = {
      op: 'open',
      key: this.#handles.key(run.segment),
      dst: run.dst.ref(run.dstOffset),
      src: buffer.arena.ref(buffer.offsetOf(run.position)),
      blocks: run.blocks,
      position: run.position,
      lba: run.lba,
    };
    const large = run.blocks * BLOCK_BYTES >= this.#options.poolReadBytes;
    if (buffer.sealing.size === 0 && !large) {
      this.#check(run, this.#cipher.runInline(job, false));
      return;
    }
    // Neither the buffer nor the key may go while the job waits for its turn.
    run.segment.pins++;
    const result = Promise.all(buffer.sealing)
      .then(() => this.#cipher.run(job))
      .then((status) => this.#check(run, status))
      .finally(() => {
        run.segment.pins--;
      });
    buffer.reading.add(result);
    const forget = (): boolean => buffer.reading.delete(result);
    result.then(forget, forget);
    return result;
  }

  #fromFile(run: ReadRun): MaybePromise<void> {
    const { file } = run.segment;
    const large = run.blocks * BLOCK_BYTES >= this.#options.poolReadBytes;
    if (file === undefined || large) return this.#fromFileLater(run);
    return this.#settle(run, this.#cipher.runInline(this.#job(run, file), true));
  }

  /** What is left to do after a read that may not wait. */
  #settle(run: ReadRun, status: number): MaybePromise<void> {
    if (status === RUN_WOULD_BLOCK) return this.#fromFileLater(run);
    this.#check(run, status);
  }

  async #fromFileLater(run: ReadRun): Promise<void> {
    run.segment.pins++;
    try {
      const file = await this.#open(run);
      this.#check(run, await this.#cipher.run(this.#job(run, file)));
    } finally {
      run.segment.pins--;
    }
  }

  async #open(run: ReadRun): Promise<StoreFile> {
    try {
      return await this.#handles.file(run.segment);
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      throw this.#damage(run, 0, messageOf(error));
    }
  }

  #job(run: ReadRun, file: StoreFile): CipherJob {
    return {
      op: 'read',
      key: this.#handles.key(run.segment),
      fd: file.fd,
      fileOffset: slotOffset(run.position),
      blocks: run.blocks,
      dst: run.dst.ref(run.dstOffset),
      position: run.position,
      lba: run.lba,
    };
  }

  #check(run: ReadRun, status: number): void {
    if (status === RUN_OK) return;
    if (status === RUN_REVOKED) throw new SealbdError('ESHUTDOWN', 'the key of this volume was taken away');
    if (status >= 0) throw this.#damage(run, status, 'does not authenticate, or cannot be read');
    throw this.#damage(run, 0, `read failed with errno ${RUN_ERRNO_BASE - status}`);
  }

  #damage(run: ReadRun, block: number, reason: string): SealbdError {
    const lba = run.lba + block;
    this.#options.onDamage(run.segment, run.position + block, lba, reason);
    return new SealbdError('EIO', `block ${lba}: ${reason}`, { deviceOffset: lba * BLOCK_BYTES });
  }
}
