import { suiteName } from '../base/ciphers.js';
import type { Clock } from '../base/clock.js';
import { messageOf, SealbdError } from '../base/errors.js';
import { BLOCK_BYTES, SLOT_BYTES } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { MaybePromise } from '../base/maybe-promise.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import type { BlockDevice, Extent, StepBudget } from '../device/block-device.js';
import type { VolumeStats } from '../device/volume-stats.js';
import { addon, type KeyHandle } from '../native/addon.js';
import type { Arena } from '../native/arena.js';
import type { SuiteId } from '../segment/format.js';
import type { Store } from '../store/store.js';
import { type Engine, openEngine } from './engine.js';
import type { PinnedVolume } from './pin.js';
import { deksInUse, isSwitched, type RewriteOptions, rewriteAll, rewritten, switchKey } from './rotation.js';
import type { Snapshot } from './snapshot.js';
import { defaultTuning, type VolumeTuning } from './tuning.js';
import { type VerifyOptions, type VerifyResult, verifyVolume } from './verify.js';
import { VolumeKeys } from './volume-keys.js';
import { VolumeSnapshots } from './volume-snapshots.js';

export interface VolumeOptions {
  readonly name: string;
  readonly uuid: Uint8Array;
  readonly sizeBytes: number;
  readonly suite: SuiteId;
  /** Unwrapped DEKs by id. Empty for `none`. */
  readonly deks: ReadonlyMap<number, KeyHandle>;
  readonly activeDek: number;
  /** Of a rotation that was begun: with `sealPending`, opening ends the volume's part in it. */
  readonly pendingDek?: number | undefined;
  readonly sealPending?: boolean | undefined;
  /** The volume was `none` before: some segments may be in plaintext. */
  readonly plain?: boolean | undefined;
  readonly store: Store;
  readonly cipher: CipherPool;
  readonly clock: Clock;
  readonly log: Logger;
  /** Just created: there is no checkpoint yet. */
  readonly fresh: boolean;
  readonly tuning?: Partial<VolumeTuning>;
}

/** What a flush, a stop or a resize answers when the volume is gone. */
const STOPPED = 'the volume is stopped';

/**
 * A sealed volume: a log-structured block device. This class admits requests and keeps the volume's state; the engine
 * behind it holds the parts (map, log head, reader, committer, checkpointer, compactor).
 */
export class Volume implements BlockDevice {
  readonly name: string;
  readonly readOnly = false;
  readonly #engine: Engine;
  readonly #options: VolumeOptions;
  readonly snapshots: VolumeSnapshots;
  readonly #clients = new Set<(reason: string) => void>();
  /** Requests of clients that wait for something. */
  readonly #inFlight = new Set<Promise<unknown>>();
  /** Verification, checkpoints and compaction that somebody asked for. */
  readonly #work = new Set<Promise<unknown>>();
  #sizeBytes: number;
  /** What a cut has as its size: while blocks are cut off, that of before, since some of them are still there. */
  #cutSizeBytes: number;
  #stopped = false;
  readonly #stopping = new AbortController();
  #failure: SealbdError | undefined;
  #requests = 0;

  static async open(options: VolumeOptions): Promise<Volume> {
    const tuning = { ...defaultTuning(options.sizeBytes, addon.cpuSelected()), ...options.tuning };
    let volume: Volume | undefined;
    let early: SealbdError | undefined;
    const keys = new VolumeKeys(options);
    const engine = await openEngine({
      ...options,
      keys,
      tuning,
      sizeBytes: () => (volume === undefined ? options.sizeBytes : volume.#cutSizeBytes),
      requests: () => volume?.requests ?? 0,
      onFailure: (error) => {
        if (volume === undefined) early = error;
        else volume.#fail(error);
      },
    });
    volume = new Volume(options, engine, tuning);
    if (early !== undefined) volume.#fail(early);
    return volume;
  }

  private constructor(options: VolumeOptions, engine: Engine, { mapBytesMax }: VolumeTuning) {
    this.#options = options;
    this.#engine = engine;
    this.#sizeBytes = options.sizeBytes;
    this.#cutSizeBytes = options.sizeBytes;
    this.name = options.name;
    this.snapshots = new VolumeSnapshots({
      ...{ volume: options.name, engine, mapBytesMax, log: options.log },
      admit: () => this.#admit(),
      isStopped: () => this.#stopped,
      track: (work) => this.#track(work),
    });
  }

  get description(): string {
    return `sealed volume, ${suiteName(this.#engine.keys.sealing.suite)}`;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get requests(): number {
    return this.#requests;
  }

  get state(): 'serving' | 'failed' | 'stopped' {
    if (this.#stopped) return 'stopped';
    return this.#failure === undefined ? 'serving' : 'failed';
  }

  /** Why it takes no more writes. */
  get failure(): string | undefined {
    return this.#failure?.message;
  }

  read(dst: Arena, dstOffset: number, offset: number, length: number): MaybePromise<void> {
    this.#admit();
    this.#bound(offset, length, 'EINVAL');
    return this.#track(this.#engine.reads.read(dst, dstOffset, offset, length));
  }

  write(src: Arena, srcOffset: number, offset: number, length: number): MaybePromise<void> {
    this.#admitChange();
    this.#bound(offset, length, 'ENOSPC');
    return this.#track(this.#engine.path.write(src, srcOffset, offset, length));
  }

  async flush(): Promise<void> {
    this.#admitChange();
    if (this.#engine.head.dirty) await this.#track(this.#engine.committer.flush());
  }

  trim(offset: number, length: number): MaybePromise<void> {
    this.#admitChange();
    this.#bound(offset, length, 'EINVAL');
    return this.#track(this.#engine.path.trim(offset, length));
  }

  zero(offset: number, length: number): MaybePromise<void> {
    this.#admitChange();
    this.#bound(offset, length, 'ENOSPC');
    return this.#track(this.#engine.path.zero(offset, length));
  }

  extents(offset: number, length: number, extentsMax: number, steps?: StepBudget): Extent[] {
    this.#admit();
    return this.#engine.reads.extents(offset, length, extentsMax, steps);
  }

  attach(onClose: (reason: string) => void): () => void {
    if (this.#stopped) throw new SealbdError('ESHUTDOWN', STOPPED);
    this.#clients.add(onClose);
    return () => this.#clients.delete(onClose);
  }

  get clients(): number {
    return this.#clients.size;
  }

  stats(): VolumeStats {
    const { map, table, head, committer, checkpointer, compactor, damage } = this.#engine;
    let storedBytes = 0;
    let snapshotBytes = 0;
    for (const segment of table.all()) {
      storedBytes += segment.slots * SLOT_BYTES;
      if (segment.live === 0 && table.isHeld(segment)) snapshotBytes += segment.slots * SLOT_BYTES;
    }
    return {
      mappedBytes: map.mappedBlocks * BLOCK_BYTES,
      storedBytes,
      snapshots: checkpointer.snapshots.list.length,
      snapshotBytes,
      segments: table.count,
      mapMemoryBytes: map.memoryBytes,
      tailBytes: head.tailSlots * SLOT_BYTES,
      commits: committer.commits,
      checkpoints: checkpointer.checkpoints,
      checkpointBytes: checkpointer.bytesWritten,
      movedBytes: compactor.movedBlocks * BLOCK_BYTES,
      requests: this.#requests,
      damagedReads: damage.reads,
    };
  }

  segmentsByDek(): Map<number, { segments: number; bytes: number }> {
    const byDek = new Map<number, { segments: number; bytes: number }>();
    for (const segment of this.#engine.table.all()) {
      const sum = byDek.get(segment.dekId) ?? { segments: 0, bytes: 0 };
      sum.segments++;
      sum.bytes += segment.slots * SLOT_BYTES;
      byDek.set(segment.dekId, sum);
    }
    return byDek;
  }

  /** Unmaps what is cut off, durably, before the size changes; so what grows back later reads as zeros. */
  async resize(sizeBytes: number): Promise<void> {
    this.#admitChange();
    const before = this.#sizeBytes;
    if (sizeBytes < before) await this.#cutOff(sizeBytes, before);
    this.#sizeBytes = sizeBytes;
    this.#cutSizeBytes = sizeBytes;
  }

  async #cutOff(sizeBytes: number, before: number): Promise<void> {
    // Smaller at once, and what was admitted before is done: no write can land behind the unmap.
    this.#sizeBytes = sizeBytes;
    try {
      await Promise.allSettled(this.#inFlight);
      const end = Math.ceil(before / BLOCK_BYTES) * BLOCK_BYTES;
      await this.#track(this.#engine.path.zero(sizeBytes, end - sizeBytes));
      await this.flush();
    } catch (error) {
      this.#sizeBytes = before;
      throw error;
    }
  }

  async verify(options: VerifyOptions): Promise<VerifyResult> {
    this.#admit();
    const { deks, store, checkpointer } = this.#engine;
    const { snapshots } = checkpointer;
    const context = { ...this.#engine, deks, store, snapshots, sizeBytes: this.#sizeBytes };
    const result = await this.#track(verifyVolume(context, options), this.#work);
    const problems = await checkpointer.verify();
    return { ...result, problems: [...result.problems, ...problems] };
  }

  /**
   * Seals everything new under another DEK from now on. The superblock must name it as pending before, and may call it
   * active when this resolves; where it rejects, it may be called again, and opening the volume does the same.
   */
  async switchKey(id: number, key: KeyHandle, suite: SuiteId): Promise<void> {
    this.#admitChange();
    await this.#track(switchKey(this.#engine, id, key, suite), this.#work);
  }

  /** The superblock calls the sealing DEK active: roots and tails under another count no more. */
  settleKey(): void {
    this.#engine.keys.settle();
  }

  /** Whether the superblock may call the DEK that seals the active one. */
  get isSwitched(): boolean {
    return isSwitched(this.#engine);
  }

  /** Rewrites what is under other DEKs than the sealing one. */
  async rewrite(options: Omit<RewriteOptions, 'clock'>): Promise<void> {
    this.#admitChange();
    const signal = AbortSignal.any([options.signal, this.#stopping.signal]);
    const work = rewriteAll(this.#engine, { ...options, signal, clock: this.#options.clock });
    await this.#track(work, this.#work);
  }

  /** Bytes of the device under the sealing DEK, and all that are mapped. */
  rewritten(): { doneBytes: number; totalBytes: number } {
    return rewritten(this.#engine);
  }

  /** DEKs that something stored is under; 0 stands for plaintext, or what is left of it. */
  deksInUse(): ReadonlySet<number> {
    return deksInUse(this.#engine);
  }

  /** The superblock names no DEK but these any more (0: plaintext is left), and nothing is under another one. */
  keepKeys(ids: readonly number[]): void {
    this.#engine.keys.keep(ids);
  }

  /** A snapshot of what is acknowledged, durable when this resolves. */
  async createSnapshot(name: string): Promise<void> {
    this.#admitChange();
    await this.#track(this.snapshots.create(name), this.#work);
  }

  async deleteSnapshot(name: string): Promise<void> {
    this.#admitChange();
    await this.#track(this.snapshots.delete(name), this.#work);
  }

  /** What is acknowledged now, or what a snapshot has, for as long as it is not released. */
  async pin(snapshot?: string): Promise<PinnedVolume> {
    if (snapshot === undefined) this.#admitChange();
    else this.#admit();
    return this.#track(this.snapshots.pin(snapshot), this.#work);
  }

  /** Writes a checkpoint now. */
  async checkpoint(): Promise<void> {
    this.#admitChange();
    await this.#track(this.#engine.checkpointer.run(), this.#work);
  }

  /** Compacts until nothing is worth it, whatever the dead share, and lets go of the old files. */
  async compact(): Promise<void> {
    this.#admitChange();
    const { compactor, checkpointer } = this.#engine;
    const work = this.#work;
    while (await this.#track(compactor.round(true), work)) await this.#track(checkpointer.run(), work);
    await this.#track(checkpointer.run(), work);
  }

  /**
   * Closes the volume so that it opens as it was when the snapshot was made; the snapshot stays. CONFLICT while clients are
   * attached, INTEGRITY where its map can't be read: then the volume serves on, as it does where `prepare` rejects. That runs
   * when a root with the present size is durable, and every root until the one that rolls back has that size too. Where this
   * rejects later, the volume is closed all the same, and the files have the one state or the other.
   */
  async rollBack(
    name: string,
    deadlineMs: number,
    prepare: () => Promise<void> = async () => undefined,
  ): Promise<void> {
    this.#admitChange();
    const snapshot = await this.#track(this.snapshots.proven(name), this.#work);
    // Most of the work, while the volume still serves.
    await this.checkpoint();
    this.#assertNoClients();
    await prepare();
    this.#assertNoClients();
    this.#admitChange();
    if (!(await this.#close(deadlineMs, snapshot)))
      throw new SealbdError('FAILED', `volume "${this.name}" was not closed in ${deadlineMs} ms`);
    if (this.#failure !== undefined) throw this.#failure;
  }

  #assertNoClients(): void {
    const clients = this.clients + this.snapshots.clients;
    if (clients > 0)
      throw new SealbdError('CONFLICT', `${clients} clients are attached to volume "${this.name}"`);
  }

  /**
   * Refuses new requests, waits for those under way, makes everything acknowledged durable, checkpoints and closes.
   * The caller then revokes the DEKs, whatever happens here. Rejects where closing failed; past the deadline it resolves
   * all the same, since the keys must go.
   */
  async stop(deadlineMs: number): Promise<void> {
    if (!this.#stopped) await this.#close(deadlineMs);
  }

  /** False where the deadline passed first. */
  async #close(deadlineMs: number, rollBackTo?: Snapshot): Promise<boolean> {
    this.#stopped = true;
    this.#stopping.abort();
    for (const close of [...this.#clients]) close(STOPPED);
    this.snapshots.close(STOPPED);
    const { clock, log } = this.#options;
    let late = false;
    const deadline = new Promise<void>((resolve) => {
      clock.setTimeout(() => {
        late = true;
        resolve();
      }, deadlineMs);
    });
    const orderly = this.#drained().then(() => this.#engine.close(this.#failure === undefined, rollBackTo));
    // After the deadline nobody waits for this any more; until then its failure is the caller's.
    orderly.catch((error: unknown) =>
      log.error({ reason: messageOf(error) }, 'the volume did not close cleanly'),
    );
    await Promise.race([deadline, orderly]);
    if (late) log.error({ volume: this.name, deadlineMs }, 'the volume missed its deadline to stop');
    return !late;
  }

  async #drained(): Promise<void> {
    while (this.#inFlight.size + this.#work.size > 0) {
      await Promise.allSettled([...this.#inFlight, ...this.#work]);
    }
  }

  /** The caller validated the range, but the device may have become smaller since, under a request in pieces. */
  #bound(offset: number, length: number, code: 'EINVAL' | 'ENOSPC'): void {
    if (offset + length > this.#sizeBytes)
      throw new SealbdError(code, 'the request passes the end of the volume');
  }

  #admit(): void {
    this.#requests++;
    if (this.#stopped) throw new SealbdError('ESHUTDOWN', STOPPED);
  }

  #admitChange(): void {
    this.#admit();
    if (this.#failure !== undefined) throw this.#failure;
  }

  #track<T>(work: MaybePromise<T>, among = this.#inFlight): MaybePromise<T> {
    if (!(work instanceof Promise)) return work;
    among.add(work);
    return work.finally(() => among.delete(work));
  }

  #fail(error: SealbdError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#options.log.error({ volume: this.name, reason: error.message }, 'the volume takes no more writes');
  }
}
