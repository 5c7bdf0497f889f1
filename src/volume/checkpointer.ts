import { type Clock, sleep, type Timer } from '../base/clock.js';
import { isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { KeyHandle } from '../native/addon.js';
import type { Segment } from '../segment/segment.js';
import type { SegmentHandles } from '../segment/segment-handles.js';
import { isDiskFull } from '../store/disk-full.js';
import type { Store } from '../store/store.js';
import type { BlockMap } from './block-map.js';
import { ChangeLog } from './change-log.js';
import {
  type CheckpointRoot,
  encodeRoot,
  type RunRef,
  readRoot,
  runsNamed,
  writeRoot,
} from './checkpoint-root.js';
import { Committer } from './committer.js';
import type { Compactor } from './compactor.js';
import type { Eraser } from './eraser.js';
import type { HeadCut, HeadLog } from './head-log.js';
import { MapRuns, type SegmentChange } from './map-runs.js';
import type { Pin } from './pin.js';
import type { Relocation } from './relocation.js';
import { Retirement } from './retirement.js';
import type { SegmentFactory } from './segment-factory.js';
import type { SegmentTable } from './segment-table.js';
import type { Snapshot } from './snapshot.js';
import { type Kept, Snapshots } from './snapshots.js';
import type { SparePool } from './spare-pool.js';
import type { VolumeKeys } from './volume-keys.js';

export interface CheckpointerOptions {
  readonly store: Store;
  readonly uuid: Uint8Array;
  readonly deks: ReadonlyMap<number, KeyHandle>;
  readonly keys: VolumeKeys;
  readonly map: BlockMap;
  readonly table: SegmentTable;
  readonly handles: SegmentHandles;
  readonly factory: SegmentFactory;
  readonly spares: SparePool;
  readonly eraser: Eraser;
  readonly head: HeadLog;
  readonly committer: Committer;
  readonly compactor: Compactor;
  readonly clock: Clock;
  readonly log: Logger;
  readonly root: CheckpointRoot;
  /** Map files that this root names, or the other copy. */
  readonly mapFiles: ReadonlySet<number>;
  /** Segments that the root's runs name. */
  readonly recorded: Iterable<Segment>;
  /** Those that the root names. */
  readonly snapshots: readonly Snapshot[];
  readonly checkpointSlots: number;
  readonly intervalMs: number;
  sizeBytes(): number;
  onFailure(error: unknown): void;
}

/** What one checkpoint covers, frozen in a single step between requests. */
interface Cut {
  readonly head: HeadCut;
  readonly changes: ChangeLog;
  readonly segments: readonly SegmentChange[];
  readonly dead: readonly Segment[];
  readonly nextSegmentId: number;
  readonly mappedBlocks: number;
  readonly sizeBytes: number;
  readonly kept: readonly Kept[];
  /** What was moved for snapshots, all of it before the cut. */
  readonly relocation: Relocation | undefined;
  /** The snapshot whose map the root is to have instead. */
  readonly rollBackTo: Snapshot | undefined;
}

function isSyncFailure(error: unknown): boolean {
  if (!(error instanceof Error) || !('syscall' in error) || isDiskFull(error)) return false;
  return error.syscall === 'fsync' || error.syscall === 'fdatasync';
}

/** Each costs an entry in the map file, which must fit in one of the reserve. The next checkpoint takes the others. */
const DEAD_PER_CHECKPOINT_MAX = 4096;
const PIN_WAIT_MS = 2;
const RETRY_MS = 1000;

/**
 * Writes the map's changes since the last checkpoint as one more sorted run, publishes a root that names it, and then
 * lets go of the segments that nobody needs any more. Requests go on meanwhile: what they change after the cut is
 * in the tail of the log, and in the next checkpoint.
 */
export class Checkpointer {
  readonly #options: CheckpointerOptions;
  readonly #runs: MapRuns;
  readonly #retirement: Retirement;
  readonly snapshots: Snapshots;
  readonly #group = new Committer(() => this.#checkpoint());
  readonly #recorded = new Set<Segment>();
  #changes = new ChangeLog();
  /** Changes of cuts whose checkpoint failed, oldest first: the next one covers them too. */
  #uncovered: ChangeLog[] = [];
  #root: CheckpointRoot;
  /** Grows with every attempt: a root that reached only one copy must not look like its successor. */
  #generation: number;
  #timer: Timer | undefined;
  #tailWaiters: (() => void)[] = [];
  #stopped = false;
  #running = false;
  #publishing = false;
  #closed = false;
  /** The last attempt failed: the next one waits for its timer. */
  #retrying = false;
  /** A checkpoint is about to start because the tail is long. */
  #due = false;
  #rollBackTo: Snapshot | undefined;
  #relocation: Relocation | undefined;
  checkpoints = 0;
  /** Runs after each checkpoint. */
  afterCheckpoint: () => void = () => undefined;

  constructor(options: CheckpointerOptions) {
    this.#options = options;
    this.#root = options.root;
    this.#generation = options.root.generation;
    this.#runs = new MapRuns(options);
    this.#retirement = new Retirement(options);
    this.snapshots = new Snapshots({
      ...options,
      runs: this.#runs,
      isFinal: (segment) => this.#retirement.isFinal(segment),
      onReleased: (pin) => this.#released(pin),
    });
    for (const segment of options.recorded) this.#recorded.add(segment);
  }

  /** Segments whose files were let go of. */
  get retired(): number {
    return this.#retirement.retired;
  }

  get bytesWritten(): number {
    return this.#runs.bytesWritten;
  }

  /** Notes a change of the map; unmapped blocks have the slot UNMAPPED. */
  note(lba: number, blocks: number, slot: number): void {
    this.#changes.append(lba, blocks, slot);
    this.#startTimer(this.#options.intervalMs);
    // Unmaps take many changes in one slot.
    if (this.#changes.changes >= this.#options.checkpointSlots) this.#startSoon();
  }

  /** Called as the log grows: starts a checkpoint where the tail has become long. */
  grown(): void {
    if (this.#options.head.tailSlots >= this.#options.checkpointSlots) this.#startSoon();
  }

  #startSoon(): void {
    if (this.#due || this.#running || this.#retrying) return;
    this.#due = true;
    setImmediate(() => {
      this.#due = false;
      this.#runInBackground();
    });
  }

  /** Resolves when a checkpoint that started after this call is durable and its garbage is gone. */
  run(): Promise<void> {
    return this.#group.flush();
  }

  /**
   * A checkpoint whose cut is kept: as a snapshot where it is given a name, otherwise until the pin is released. Everything
   * acknowledged before the call is in it. ENOSPC where the disk has no room for that.
   */
  keep(name?: string): Promise<Pin> {
    const pin = this.snapshots.request(name);
    // What it rejects with is told through the pin.
    this.run().catch(() => undefined);
    return pin;
  }

  /** A checkpoint by which snapshots name where their blocks were moved to. Where there is no room for that, it says so. */
  async relocate(relocation: Relocation): Promise<void> {
    this.#relocation = relocation;
    await this.run();
  }

  /**
   * Resolves when the last published root does not name the snapshot; what only it needed goes with a checkpoint after that.
   * Rejects, and the snapshot is there as before, where it does.
   */
  async deleteSnapshot(snapshot: Snapshot): Promise<void> {
    this.snapshots.takeOut(snapshot);
    try {
      await this.run();
    } catch (error) {
      // Another one, past its cut before or begun since, leaves the snapshot out too, and removes its map files: none may be on its way.
      while (this.#group.isBusy) await this.#group.idle();
      if (this.#root.snapshots.some(({ name }) => name === snapshot.name)) {
        this.snapshots.putBack(snapshot);
        throw error;
      }
      this.#options.log.warn(
        { snapshot: snapshot.name, reason: messageOf(error) },
        'a snapshot was deleted though a checkpoint failed',
      );
    }
    this.snapshots.forget(snapshot);
  }

  /**
   * The last checkpoint of a volume that is closed, and has nothing acknowledged that is not durable: its root has the map of
   * the snapshot, and goes on in everything else. What is in memory is not true any more afterwards.
   */
  async rollBack(snapshot: Snapshot): Promise<void> {
    if (this.#options.head.cut().segment !== undefined || this.#options.head.dirty)
      throw new Error('only a volume whose log is closed is rolled back');
    this.#rollBackTo = snapshot;
    await this.run();
  }

  /** Lets go of every segment that nobody needs now. */
  async letGo(): Promise<void> {
    do await this.run();
    while (this.canRetire && !this.#stopped);
  }

  /** Resolves after the next published checkpoint. */
  whenTailShrinks(): Promise<void> {
    if (!this.#retrying) this.#runInBackground();
    return new Promise((resolve) => this.#tailWaiters.push(resolve));
  }

  #startTimer(delayMs: number): void {
    if (this.#stopped || this.#timer !== undefined) return;
    this.#timer = this.#options.clock.setTimeout(() => this.#runInBackground(), delayMs);
  }

  /** Whoever asked for the checkpoint that failed: writers may wait for the next one, and nothing else would begin it. */
  #retryLater(): void {
    this.#retrying = true;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#startTimer(RETRY_MS);
  }

  #runInBackground(): void {
    if (this.#running || this.#stopped) return;
    this.#running = true;
    this.run()
      .then(
        () => this.#tailWaiters.length > 0,
        (error: unknown) => {
          this.#options.log.error({ reason: messageOf(error) }, 'checkpoint failed');
          return false;
        },
      )
      .then((again) => {
        this.#running = false;
        // Whoever came after the cut waits for the next one.
        if (again) this.#runInBackground();
      });
  }

  async #checkpoint(): Promise<void> {
    const { head, compactor } = this.#options;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#retrying = false;
    // What is kept for long may keep nothing of the reserve.
    if (this.snapshots.isWanted) await this.#retirement.fillReserve();
    const cut = this.#cut();
    try {
      await this.#syncSlots();
      await compactor.sync();
      await this.#publish(cut);
    } catch (error) {
      this.#uncut(cut);
      this.snapshots.failed(cut.kept, error);
      this.#retryLater();
      // The kernel forgets a failed sync: trying again could call a root durable that is not.
      if (isSyncFailure(error)) this.#options.onFailure(error);
      throw error;
    }
    this.#uncovered = [];
    head.covered(cut.head);
    for (const waiter of this.#tailWaiters.splice(0)) waiter();
    for (const change of cut.segments) if (change.segment !== undefined) this.#recorded.add(change.segment);
    this.checkpoints++;
    await this.#runs.removeUnnamed([...runsNamed(this.#root), ...this.snapshots.runsPinned()]);
    for (const segment of cut.dead) this.#recorded.delete(segment);
    await this.#retirement.letGo(cut.dead);
    if (!this.#stopped) this.afterCheckpoint();
  }

  /** Somebody has read what was kept for him: a checkpoint soon lets go of what nothing else needs. */
  #released({ files }: Pin): void {
    const named = new Set([...runsNamed(this.#root)].map((run) => run.fileId));
    if (this.canRetire || files.some((run) => !named.has(run.fileId))) this.#startTimer(0);
  }

  /** Makes every slot durable. Unmaps that find no room in the log are in the map of the cut anyway. */
  async #syncSlots(): Promise<void> {
    try {
      await this.#options.committer.flush();
    } catch (error) {
      if (!isSealbdError(error, 'ENOSPC')) throw error;
    }
  }

  /** True where a checkpoint would let go of a segment. */
  get canRetire(): boolean {
    for (const segment of this.#options.table.all()) if (this.#retirement.isDead(segment)) return true;
    return false;
  }

  /** One step: no request comes between its parts. */
  #cut(): Cut {
    const { head, table, factory, map } = this.#options;
    const dead: Segment[] = [];
    const segments: SegmentChange[] = [];
    for (const segment of table.all()) {
      if (!this.#retirement.isDead(segment) || dead.length >= DEAD_PER_CHECKPOINT_MAX) continue;
      dead.push(segment);
      table.changed.delete(segment);
      if (this.#recorded.has(segment)) segments.push({ index: segment.index, segment: undefined, slots: 0 });
    }
    const headCut = head.cut();
    // The root names the open segment, so the segment table must, even where it has no slots yet.
    if (headCut.segment !== undefined) table.changed.add(headCut.segment);
    for (const segment of table.changed)
      segments.push({ index: segment.index, segment, slots: segment.slots });
    table.changed.clear();
    const { lastSequence } = headCut;
    const { mappedBlocks } = map;
    const { nextSegmentId } = factory;
    const sizeBytes = this.#options.sizeBytes();
    const cut: Cut = {
      head: headCut,
      changes: this.#changes,
      segments,
      dead,
      nextSegmentId,
      mappedBlocks,
      sizeBytes,
      relocation: this.#relocation,
      rollBackTo: this.#rollBackTo,
      kept: this.snapshots.keep({ lastSequence, sizeBytes, mappedBlocks, segmentIdEnd: nextSegmentId }),
    };
    this.#changes = new ChangeLog();
    this.#relocation = undefined;
    return cut;
  }

  #uncut(cut: Cut): void {
    this.#uncovered.push(cut.changes);
    for (const { segment } of cut.segments)
      if (segment !== undefined) this.#options.table.changed.add(segment);
  }

  async #publish(cut: Cut): Promise<void> {
    const { store, uuid, keys } = this.#options;
    const { id: dekId, key } = keys.sealing;
    const runs = await this.#runsOf(cut);
    const { kept, relocation, nextSegmentId } = cut;
    const prepared = await this.snapshots.prepare(runs, kept, relocation, nextSegmentId);
    const root: CheckpointRoot = {
      dekId,
      generation: ++this.#generation,
      lastSequence: cut.head.lastSequence,
      nextSegmentId,
      nextMapFileId: this.#runs.nextFileId,
      headId: cut.head.segment?.id ?? 0,
      headSlots: cut.head.headSlots,
      preparedId: cut.head.preparedId,
      sizeBytes: (cut.rollBackTo?.entry ?? cut).sizeBytes,
      mappedBlocks: (cut.rollBackTo?.entry ?? cut).mappedBlocks,
      runs,
      snapshots: prepared.entries,
    };
    if (this.#closed) throw new SealbdError('ESHUTDOWN', 'the volume is closed');
    this.#publishing = true;
    try {
      await writeRoot(store, encodeRoot(uuid, root, key));
    } finally {
      this.#publishing = false;
    }
    this.#root = root;
    this.snapshots.published(prepared);
    await this.snapshots.follow(prepared);
  }

  #runsOf(cut: Cut): Promise<readonly RunRef[]> {
    if (cut.rollBackTo === undefined)
      return this.#runs.extend(this.#root.runs, [...this.#uncovered, cut.changes], cut.segments);
    const segments = [...this.#options.table.all()].filter((segment) => !cut.dead.includes(segment));
    return this.#runs.restart(
      cut.rollBackTo.entry.runs,
      segments.map((segment) => ({ index: segment.index, segment, slots: segment.slots })),
    );
  }

  /** Re-reads both copies of the root and every map file of the volume (not those of snapshots alone); what does not authenticate, in words. */
  async verify(): Promise<string[]> {
    return [...(await this.#verifyRoot()), ...(await this.#runs.verify(this.#root.runs))];
  }

  async #verifyRoot(): Promise<string[]> {
    const { store, uuid, keys, log } = this.#options;
    for (;;) {
      const generation = this.#generation;
      try {
        const { intact } = await readRoot(store, uuid, keys, log);
        if (intact) return [];
        // While a checkpoint is published its copies differ for an instant.
        if (generation === this.#generation && !this.#publishing) {
          return ['checkpoint: the copies of the root differ'];
        }
      } catch (error) {
        return [messageOf(error)];
      }
      await sleep(this.#options.clock, PIN_WAIT_MS);
    }
  }

  /** Ends for good: whatever runs is waited for, and nothing is published or let go of afterwards. */
  async close(): Promise<void> {
    this.stop();
    this.#closed = true;
    this.#retirement.close();
    await this.#group.idle();
  }

  /** Resolves when no checkpoint runs. */
  idle(): Promise<void> {
    return this.#group.idle();
  }

  /** The last durable root is under this DEK. */
  isRootUnder(dekId: number): boolean {
    return this.#root.dekId === dekId;
  }

  /** DEKs that the last durable root and its map files are under. */
  get deksOnDisk(): ReadonlySet<number> {
    return new Set([this.#root.dekId, ...[...runsNamed(this.#root)].map((run) => run.dekId)]);
  }

  /** No further checkpoint starts by itself, and nobody waits for one. */
  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
    for (const waiter of this.#tailWaiters.splice(0)) waiter();
  }
}
