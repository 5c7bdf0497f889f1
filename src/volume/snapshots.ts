/** The snapshots that the checkpoint root names, and the cuts that are kept for the moment (docs/FORMAT.md, "Snapshots"). */
import type { Clock } from '../base/clock.js';
import { errnoOf, isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import { BLOCK_BYTES, SLOT_BYTES, SNAPSHOTS_MAX } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { Segment } from '../segment/segment.js';
import { isDiskFull } from '../store/disk-full.js';
import type { ChangeLog } from './change-log.js';
import type { RunRef, SnapshotEntry } from './checkpoint-root.js';
import type { MapRuns } from './map-runs.js';
import { type CutFacts, Pin, type PinOptions } from './pin.js';
import { type RunFilesOptions, readTable } from './run-files.js';
import type { Holds, SegmentTable } from './segment-table.js';
import type { SparePool } from './spare-pool.js';

/** A durable snapshot. */
export class Snapshot {
  /** As the root has it; another one after its blocks were moved or its files written anew. */
  entry: SnapshotEntry;
  /** Empty where it is damaged. */
  holds: Holds;
  /** Why it can't be used, where that is so: then nobody knows which segments it needs. */
  readonly problem: string | undefined;
  /** Has a map of it in memory, perhaps, which must follow where its blocks are moved. */
  reader: { follow(moved: ChangeLog): Promise<void> } | undefined;

  constructor(entry: SnapshotEntry, holds: Holds, problem?: string) {
    this.entry = entry;
    this.holds = holds;
    this.problem = problem;
  }

  get name(): string {
    return this.entry.name;
  }
}

export interface SnapshotInfo {
  readonly name: string;
  /** Unix ms. */
  readonly createdAtMs: number;
  /** Of the device, at its cut. */
  readonly sizeBytes: number;
  readonly mappedBytes: number;
  /** Stored in segments that nothing else needs: what deleting it gives back at once. */
  readonly uniqueBytes: number;
  readonly problem: string | undefined;
}

interface Request {
  /** Undefined for a pin, which nothing on disk tells of. */
  readonly name: string | undefined;
  resolve(pin: Pin): void;
  reject(error: unknown): void;
}

/** A cut that is to be kept, from the step in which it was made on. */
export type Kept = Request & { readonly pin: Pin };

/** What a root says of snapshots, and what is so once it is durable. */
export interface Prepared {
  readonly entries: readonly SnapshotEntry[];
  readonly kept: readonly { readonly kept: Kept; readonly made: Snapshot | undefined }[];
}

export interface SnapshotsOptions extends RunFilesOptions {
  readonly table: SegmentTable;
  readonly spares: SparePool;
  readonly runs: MapRuns;
  readonly clock: Clock;
  readonly snapshots: readonly Snapshot[];
  /** Nothing writes the file of the segment any more. */
  isFinal(segment: Segment): boolean;
  /** Something that was kept is not needed any more: a checkpoint lets it go. */
  onReleased(): void;
}

/** Reads the tables of a root's snapshots, and counts what they hold. One that is damaged keeps all that it may need. */
export async function loadSnapshots(
  files: RunFilesOptions,
  entries: readonly SnapshotEntry[],
  table: SegmentTable,
  log: Logger,
): Promise<Snapshot[]> {
  const snapshots: Snapshot[] = [];
  for (const entry of entries) {
    try {
      const holds = await readHolds(files, entry, table);
      table.hold(holds);
      snapshots.push(new Snapshot(entry, holds));
    } catch (error) {
      if (!isSealbdError(error, 'INTEGRITY') && errnoOf(error) !== 'EIO') throw error;
      const reason = messageOf(error);
      log.error({ snapshot: entry.name, reason }, 'a snapshot is damaged; what it may need is kept');
      table.heldBelowId = Math.max(table.heldBelowId, entry.segmentIdEnd);
      snapshots.push(new Snapshot(entry, new Map(), reason));
    }
  }
  return snapshots;
}

async function readHolds(
  files: RunFilesOptions,
  { name, mappedBlocks, table: run }: SnapshotEntry,
  table: SegmentTable,
): Promise<Holds> {
  const holds = new Map<Segment, number>();
  let blocks = 0;
  for (const { index, segmentId, slots } of await readTable(files, run)) {
    const segment = table.byIndex(index);
    if (segment?.id !== segmentId)
      throw new SealbdError('INTEGRITY', `snapshot "${name}" names segment ${segmentId}, which is missing`);
    holds.set(segment, slots);
    blocks += slots;
  }
  if (blocks !== mappedBlocks)
    throw new SealbdError('INTEGRITY', `snapshot "${name}" has ${blocks} blocks instead of ${mappedBlocks}`);
  return holds;
}

export class Snapshots {
  readonly #options: SnapshotsOptions;
  #list: readonly Snapshot[];
  readonly #requests: Request[] = [];
  /** Those that are not, or not yet, snapshots of a durable root. */
  readonly #pins = new Set<Pin>();
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

  info({ entry, holds, problem }: Snapshot): SnapshotInfo {
    let uniqueBytes = 0;
    for (const [segment, blocks] of holds)
      if (segment.live === 0 && segment.held === blocks) uniqueBytes += segment.slots * SLOT_BYTES;
    const { name, createdAtMs, sizeBytes, mappedBlocks } = entry;
    return { name, createdAtMs, sizeBytes, mappedBytes: mappedBlocks * BLOCK_BYTES, uniqueBytes, problem };
  }

  /** Has the next checkpoint keep its cut; as a snapshot where it is given a name. */
  request(name: string | undefined): Promise<Pin> {
    if (name !== undefined) this.#assertNew(name);
    return new Promise((resolve, reject) => this.#requests.push({ name, resolve, reject }));
  }

  #assertNew(name: string): void {
    const names = [...this.#list, ...this.#requests].map((known) => known.name);
    if (names.includes(name)) throw new SealbdError('CONFLICT', `snapshot "${name}" exists already`);
    if (names.length >= SNAPSHOTS_MAX)
      throw new SealbdError('CONFLICT', `there are ${SNAPSHOTS_MAX} snapshots already`);
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
    this.#options.onReleased();
  }

  /** Keeps what a snapshot names, whatever becomes of it. INTEGRITY where it is damaged. */
  pin({ entry, holds, problem }: Snapshot): Pin {
    if (problem !== undefined) throw new SealbdError('INTEGRITY', problem);
    const pin = this.#pin(entry, holds);
    pin.files = entry.runs;
    return pin;
  }

  /** Writes the files that a root needs which names `runs` as the map, and says what it is to name besides. */
  async prepare(runs: readonly RunRef[], kept: readonly Kept[]): Promise<Prepared> {
    const entries = this.#list.map((snapshot) => snapshot.entry);
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
    return { entries, kept: prepared };
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
  published({ kept }: Prepared): void {
    for (const { kept: one, made } of kept) {
      if (made !== undefined) {
        this.#pins.delete(one.pin); // What it holds is the snapshot's.
        this.#list = [...this.#list, made];
      }
      one.resolve(one.pin);
    }
  }

  /** It is not. */
  failed(kept: readonly Kept[], error: unknown): void {
    for (const { pin, reject } of kept) {
      if (!this.#pins.has(pin)) continue; // Told already.
      this.#release(pin);
      reject(error);
    }
  }

  /** Takes a snapshot out of what the next root names; returns what puts it back. Its segments stay until `forget`. */
  takeOut(snapshot: Snapshot): () => void {
    const before = this.#list;
    this.#list = before.filter((other) => other !== snapshot);
    return () => {
      // Others may have come or gone meanwhile.
      const since = this.#list.filter((other) => !before.includes(other));
      this.#list = [...before.filter((other) => other === snapshot || this.#list.includes(other)), ...since];
    };
  }

  /** No durable root names it any more: what it holds may go. */
  forget(snapshot: Snapshot): void {
    const { table } = this.#options;
    table.release(snapshot.holds);
    const damaged = this.#list.filter(({ problem }) => problem !== undefined);
    table.heldBelowId = Math.max(0, ...damaged.map(({ entry }) => entry.segmentIdEnd));
  }

  /** Map files that pins need. */
  *runsPinned(): Generator<RunRef> {
    for (const { files } of this.#pins) yield* files;
  }
}

function tableOf(holds: Holds) {
  return [...holds].map(([segment, blocks]) => ({ index: segment.index, segment, slots: blocks }));
}
