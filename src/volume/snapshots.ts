/** The snapshots that the checkpoint root names, and the cuts that are kept for the moment (docs/FORMAT.md, "Snapshots"). */
import type { Clock } from '../base/clock.js';
import { messageOf, SealbdError } from '../base/errors.js';
import { SNAPSHOTS_MAX } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { Segment } from '../segment/segment.js';
import { isDiskFull } from '../store/disk-full.js';
import { ChangeLog } from './change-log.js';
import type { RunRef, SnapshotEntry } from './checkpoint-root.js';
import type { MapRuns } from './map-runs.js';
import { type CutFacts, Pin, type PinOptions } from './pin.js';
import type { Relocation } from './relocation.js';
import { isUnreadable, type RunFilesOptions, readRuns } from './run-files.js';
import type { Holds, SegmentTable } from './segment-table.js';
import { Snapshot, tableOf } from './snapshot.js';
import type { SparePool } from './spare-pool.js';
import type { VolumeKeys } from './volume-keys.js';

const CHECKPOINTS_TO_ANEW = 16;
/** Each is all of a map: more in one checkpoint could hold up the writers who wait for it. */
const ANEW_A_CHECKPOINT = 1;

interface Request {
  /** Undefined for a pin, which nothing on disk tells of. */
  readonly name: string | undefined;
  resolve(pin: Pin): void;
  reject(error: unknown): void;
}

/** A cut that is to be kept, from the step in which it was made on. */
export type Kept = Request & { readonly pin: Pin };

/** What becomes of a snapshot whose blocks were moved, or whose map files are written anew. */
interface Changed {
  readonly snapshot: Snapshot;
  readonly entry: SnapshotEntry;
  readonly holds: Holds;
  readonly moved: ChangeLog;
}

/** What a root says of snapshots, and what is so once it is durable. */
export interface Prepared {
  readonly entries: readonly SnapshotEntry[];
  readonly changed: readonly Changed[];
  readonly kept: readonly { readonly kept: Kept; readonly made: Snapshot | undefined }[];
}

export interface SnapshotsOptions extends RunFilesOptions {
  readonly table: SegmentTable;
  readonly spares: SparePool;
  readonly runs: MapRuns;
  readonly keys: VolumeKeys;
  readonly clock: Clock;
  readonly log: Logger;
  readonly snapshots: readonly Snapshot[];
  /** Nothing writes the file of the segment any more. */
  isFinal(segment: Segment): boolean;
  /** What was kept is not needed any more. */
  onReleased(pin: Pin): void;
}

export class Snapshots {
  readonly #options: SnapshotsOptions;
  #list: readonly Snapshot[];
  readonly #requests: Request[] = [];
  /** Names of those that are being made or deleted. */
  readonly #namesUnderWay = new Set<string>();
  /** Those that are not, or not yet, snapshots of a durable root. */
  readonly #pins = new Set<Pin>();
  /** Checkpoints until map files under another DEK are tried again to be written anew. */
  #anewIn = 0;
  /** Snapshots whose map files were written anew under another DEK. */
  writtenAnew = 0;
  readonly #pinOptions: PinOptions;

  constructor(options: SnapshotsOptions) {
    this.#options = options;
    this.#list = options.snapshots;
    this.#pinOptions = {
      files: options,
      table: options.table,
      isFinal: (segment) => options.isFinal(segment),
      onRelease: async (pin) => this.#release(pin),
    };
  }

  /** Oldest first. */
  get list(): readonly Snapshot[] {
    return this.#list;
  }

  find(name: string): Snapshot | undefined {
    return this.#list.find((snapshot) => snapshot.name === name);
  }

  /** NOT_FOUND where there is none. */
  get(name: string): Snapshot {
    const snapshot = this.find(name);
    if (snapshot === undefined) throw new SealbdError('NOT_FOUND', `no snapshot "${name}"`);
    return snapshot;
  }

  /** Has the next checkpoint keep its cut; as a snapshot where it is given a name. */
  request(name: string | undefined): Promise<Pin> {
    if (name !== undefined) this.#begin(name);
    const kept = new Promise<Pin>((resolve, reject) => this.#requests.push({ name, resolve, reject }));
    return kept.finally(() => {
      if (name !== undefined) this.#namesUnderWay.delete(name);
    });
  }

  #begin(name: string): void {
    if (this.find(name) !== undefined || this.#namesUnderWay.has(name))
      throw new SealbdError('CONFLICT', `snapshot "${name}" exists already`);
    if (this.#list.length + this.#namesUnderWay.size >= SNAPSHOTS_MAX)
      throw new SealbdError('CONFLICT', `there are ${SNAPSHOTS_MAX} snapshots already`);
    this.#namesUnderWay.add(name);
  }

  get isWanted(): boolean {
    return this.#requests.length > 0;
  }

  /** A part of the step of the cut: what the map names in it can't be let go of from here on. */
  keep(facts: Omit<CutFacts, 'createdAtMs'>): Kept[] {
    const { table, clock } = this.#options;
    return this.#requests.splice(0).map((request) => {
      const holds = table.liveHolds();
      return { ...request, pin: this.#pin({ ...facts, createdAtMs: clock.now() }, holds) };
    });
  }

  #pin(facts: CutFacts, holds: Holds): Pin {
    this.#options.table.hold(holds);
    const pin = new Pin(facts, holds, this.#pinOptions);
    this.#pins.add(pin);
    return pin;
  }

  #release(pin: Pin): void {
    if (!this.#pins.delete(pin)) return;
    this.#options.table.release(pin.holds);
    this.#options.onReleased(pin);
  }

  /** Keeps what a snapshot names, whatever becomes of it. INTEGRITY where it is damaged. */
  pin({ entry, holds, problem }: Snapshot): Pin {
    if (problem !== undefined) throw new SealbdError('INTEGRITY', problem);
    const pin = this.#pin(entry, holds);
    pin.files = entry.runs;
    return pin;
  }

  /**
   * Writes the files that a root needs which names `runs` as the map, and says what it is to name besides. `segmentIdEnd` is
   * above the ids of all segments.
   */
  async prepare(
    runs: readonly RunRef[],
    kept: readonly Kept[],
    relocation: Relocation | undefined,
    segmentIdEnd: number,
  ): Promise<Prepared> {
    const list = this.#list;
    const changed: Changed[] = [];
    let anewLeft = this.#anewNow(relocation !== undefined);
    if (relocation !== undefined) relocation.published = true;
    for (const snapshot of list) {
      try {
        const anew = anewLeft > 0 && !snapshot.isStuck && this.#isForeign(snapshot.entry);
        const change = await this.#changeWithRoom(snapshot, relocation, segmentIdEnd, anew);
        if (change !== undefined) changed.push(change);
        // Where there was no room for one, there is none for the next.
        if (anew) anewLeft = change === undefined || this.#isForeign(change.entry) ? 0 : anewLeft - 1;
      } catch (error) {
        // It stays as it is: where its blocks were moved from stays too.
        if (isUnreadable(error)) this.noteUnreadable(snapshot, error);
        else if (relocation !== undefined && isDiskFull(error)) relocation.published = false;
        else throw error;
      }
    }
    const entries = list.map((snapshot) => {
      return changed.find((change) => change.snapshot === snapshot)?.entry ?? snapshot.entry;
    });
    const prepared: { kept: Kept; made: Snapshot | undefined }[] = [];
    for (const one of kept) {
      try {
        const made = await this.#make(runs, one);
        if (made !== undefined) entries.push(made.entry);
        prepared.push({ kept: one, made });
      } catch (error) {
        if (!isDiskFull(error)) throw error;
        this.failed([one], new SealbdError('ENOSPC', messageOf(error), { cause: error }));
      }
    }
    if (this.#anewIn > 0) this.#anewIn--;
    return { entries, changed, kept: prepared };
  }

  /** How many snapshots may be written anew with the next root. What anybody can authenticate must not stay. */
  #anewNow(isRewriting: boolean): number {
    if (this.#options.keys.plain) return Number.POSITIVE_INFINITY;
    return isRewriting || this.#anewIn === 0 ? ANEW_A_CHECKPOINT : 0;
  }

  #isForeign({ table, runs }: SnapshotEntry): boolean {
    return [table, ...runs].some((run) => run.dekId !== this.#options.keys.sealing.id);
  }

  /** Where the disk has no room for all of a map, what was moved is said alone; the rest is tried again later. */
  async #changeWithRoom(
    snapshot: Snapshot,
    relocation: Relocation | undefined,
    segmentIdEnd: number,
    anew: boolean,
  ): Promise<Changed | undefined> {
    try {
      return await this.#change(snapshot, relocation, segmentIdEnd, anew);
    } catch (error) {
      if (!anew || !isDiskFull(error)) throw error;
      this.#anewIn = CHECKPOINTS_TO_ANEW;
      return this.#change(snapshot, relocation, segmentIdEnd, false);
    }
  }

  async #change(
    snapshot: Snapshot,
    relocation: Relocation | undefined,
    segmentIdEnd: number,
    anew: boolean,
  ): Promise<Changed | undefined> {
    if (snapshot.isStuck) return undefined;
    const { entry, holds } = snapshot;
    const { runs } = this.#options;
    const moved = new ChangeLog();
    const follows = relocation?.concerns(holds) === true;
    const after = follows
      ? await relocation.follow(readRuns(this.#options, entry.runs), holds, moved)
      : holds;
    if (moved.changes === 0 && !anew) return undefined;
    const next = {
      ...entry,
      segmentIdEnd,
      runs: await runs.extendSnapshot(entry.runs, moved, anew),
      table: await runs.writeTable(tableOf(after)),
    };
    return { snapshot, entry: next, holds: after, moved };
  }

  /** Its blocks and files stay under the DEK that they are under. */
  noteUnreadable(snapshot: Snapshot, error: unknown): void {
    if (snapshot.unreadable !== undefined) return;
    snapshot.unreadable = messageOf(error);
    this.#options.log.error(
      { snapshot: snapshot.name, reason: snapshot.unreadable },
      'the map of a snapshot can not be read; what it holds stays where it is',
    );
  }

  /** Those that can't be rewritten until they are deleted. */
  get stuck(): readonly Snapshot[] {
    return this.#list.filter((snapshot) => snapshot.isStuck);
  }

  /** Whether one of them has map files under another DEK than the sealing one. */
  get isStuckForeign(): boolean {
    return this.stuck.some(({ entry }) => this.#isForeign(entry));
  }

  /** Whether one that can't be rewritten keeps the segment. */
  keepsStuck(segment: Segment): boolean {
    if (segment.id < this.#options.table.heldBelowId) return true;
    return this.stuck.some(({ holds }) => holds.has(segment));
  }

  /** Whether a pin needs something under another DEK than this one: it is waited for. */
  pinsOthers(dekId: number): boolean {
    for (const { holds, files } of this.#pins) {
      if (files.some((run) => run.dekId !== dekId)) return true;
      for (const segment of holds.keys()) if (segment.dekId !== dekId) return true;
    }
    return false;
  }

  async #make(mapRuns: readonly RunRef[], { name, pin }: Kept): Promise<Snapshot | undefined> {
    const { runs, spares } = this.#options;
    // A map file of the reserve must come back to it, and so may not be kept.
    if (!spares.mapsAreWhole) throw new SealbdError('ENOSPC', 'no room to keep the map as it is');
    pin.files = mapRuns;
    if (name === undefined) return undefined;
    const { facts, holds } = pin;
    const entry: SnapshotEntry = {
      ...facts,
      name,
      runs: await runs.forSnapshot(mapRuns),
      table: await runs.writeTable(tableOf(holds)),
    };
    return new Snapshot(entry, holds);
  }

  /** A root that says what was prepared is durable. */
  published({ changed, kept }: Prepared): void {
    for (const { snapshot, entry, holds } of changed) {
      this.#options.table.hold(holds);
      this.#options.table.release(snapshot.holds);
      if (this.#isForeign(snapshot.entry) && !this.#isForeign(entry)) this.writtenAnew++;
      snapshot.entry = entry;
      snapshot.holds = holds;
    }
    for (const { kept: one, made } of kept) {
      if (made !== undefined) {
        this.#pins.delete(one.pin); // What it holds is the snapshot's.
        this.#list = [...this.#list, made];
      }
      one.resolve(one.pin);
    }
  }

  /** Has the maps in memory name what the published root names. Nothing that they named before may go until that is done. */
  async follow({ changed }: Prepared): Promise<void> {
    for (const { snapshot, moved } of changed) await snapshot.reader?.follow(moved);
  }

  /** It is not. */
  failed(kept: readonly Kept[], error: unknown): void {
    for (const { pin, reject } of kept) {
      if (!this.#pins.has(pin)) continue; // Told already.
      this.#release(pin);
      reject(error);
    }
  }

  /** The next root does not name the snapshot. Its segments stay until `forget`. */
  takeOut(snapshot: Snapshot): void {
    this.#namesUnderWay.add(snapshot.name);
    this.#list = this.#list.filter((other) => other !== snapshot);
  }

  /** The last root that was published names it still, and no other is on its way. */
  putBack(snapshot: Snapshot): void {
    this.#namesUnderWay.delete(snapshot.name);
    this.#list = [...this.#list, snapshot].sort((a, b) => a.entry.lastSequence - b.entry.lastSequence);
  }

  /** The last root does not name it any more: what it holds may go. */
  forget(snapshot: Snapshot): void {
    const { table } = this.#options;
    this.#namesUnderWay.delete(snapshot.name);
    table.release(snapshot.holds);
    const damaged = this.#list.filter(({ problem }) => problem !== undefined);
    table.heldBelowId = Math.max(0, ...damaged.map(({ entry }) => entry.segmentIdEnd));
  }

  /** Map files that pins need. */
  *runsPinned(): Generator<RunRef> {
    for (const { files } of this.#pins) yield* files;
  }
}
