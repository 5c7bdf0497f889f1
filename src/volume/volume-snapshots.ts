/** What a volume offers of its snapshots: made, listed, deleted, pinned, and read. */
import { messageOf, SealbdError } from '../base/errors.js';
import { NAME_PATTERN } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { MaybePromise } from '../base/maybe-promise.js';
import type { Engine } from './engine.js';
import type { PinnedVolume } from './pin.js';
import type { Snapshot, SnapshotInfo } from './snapshot.js';
import { SnapshotDevice } from './snapshot-device.js';

export interface VolumeSnapshotsOptions {
  readonly volume: string;
  readonly engine: Engine;
  /** What the maps of all snapshots that are read may take in memory. */
  readonly mapBytesMax: number;
  readonly log: Logger;
  admit(): void;
  isStopped(): boolean;
  track<T>(work: MaybePromise<T>): MaybePromise<T>;
}

export class VolumeSnapshots {
  readonly #options: VolumeSnapshotsOptions;
  readonly #devices = new Map<Snapshot, SnapshotDevice>();
  /** The last map that is being loaded, or waits for its turn. */
  #loading: Promise<unknown> = Promise.resolve();

  constructor(options: VolumeSnapshotsOptions) {
    this.#options = options;
  }

  get #snapshots() {
    return this.#options.engine.checkpointer.snapshots;
  }

  /** Oldest first. */
  list(): (SnapshotInfo & { readonly clients: number })[] {
    return this.#snapshots.list.map((snapshot) => {
      return { ...snapshot.info, clients: this.#devices.get(snapshot)?.clients ?? 0 };
    });
  }

  /** Everything acknowledged before the call is in it. Resolves when it is durable. */
  async create(name: string): Promise<SnapshotInfo> {
    if (!NAME_PATTERN.test(name))
      throw new SealbdError('USAGE', `"${name}" is no snapshot name: expected ${NAME_PATTERN.source}`);
    await this.#options.engine.checkpointer.keep(name);
    return this.#snapshots.get(name).info;
  }

  /** Resolves when it is gone for good; what only it needed has been let go of, where that was possible at once. */
  async delete(name: string): Promise<void> {
    const { engine, log } = this.#options;
    const snapshot = this.#snapshots.get(name);
    const clients = this.#devices.get(snapshot)?.clients ?? 0;
    if (clients > 0)
      throw new SealbdError('CONFLICT', `${clients} clients are attached to snapshot "${name}"`);
    this.#devices.delete(snapshot);
    await engine.checkpointer.deleteSnapshot(snapshot);
    try {
      await engine.checkpointer.letGo();
    } catch (error) {
      log.warn(
        { snapshot: name, reason: messageOf(error) },
        'what a deleted snapshot held is let go of later',
      );
    }
  }

  /** What the volume holds now, or a snapshot of it, for somebody who reads it without being a client. */
  pin(name?: string): Promise<PinnedVolume> {
    if (name === undefined) return this.#options.engine.checkpointer.keep();
    return Promise.resolve(this.#snapshots.pin(this.#snapshots.get(name)));
  }

  /** A snapshot that the volume can be rolled back to: its map is read to the end. INTEGRITY where that can't be done. */
  async proven(name: string): Promise<Snapshot> {
    const snapshot = this.#snapshots.get(name);
    const pin = this.#snapshots.pin(snapshot);
    try {
      for await (const _batch of pin.runs());
    } finally {
      await pin.release();
    }
    return snapshot;
  }

  /** What NBD may serve; undefined where there is no such snapshot. */
  device(name: string): SnapshotDevice | undefined {
    const snapshot = this.#snapshots.find(name);
    return snapshot === undefined ? undefined : this.#deviceOf(snapshot);
  }

  /** Of each snapshot, oldest first. */
  devices(): SnapshotDevice[] {
    return this.#snapshots.list.map((snapshot) => this.#deviceOf(snapshot));
  }

  #deviceOf(snapshot: Snapshot): SnapshotDevice {
    let device = this.#devices.get(snapshot);
    if (device === undefined) {
      const { engine, volume, log, admit, isStopped, track } = this.#options;
      const { table, reader, bounce } = engine;
      device = new SnapshotDevice({
        ...{ volume, snapshot, table, reader, bounce, log, admit, isStopped, track },
        pin: (of) => this.#snapshots.pin(of),
        inTurn: (load) => this.#inTurn(load),
      });
      this.#devices.set(snapshot, device);
      snapshot.reader = device;
    }
    return device;
  }

  #inTurn<T>(load: (mapBytesMax: number) => Promise<T>): Promise<T> {
    const result = this.#loading.then(() => load(this.#mapBytesLeft()));
    this.#loading = result.catch(() => undefined); // Whoever asked for it is told.
    return result;
  }

  #mapBytesLeft(): number {
    return [...this.#devices.values()].reduce(
      (left, device) => left - device.memoryBytes,
      this.#options.mapBytesMax,
    );
  }

  get clients(): number {
    return [...this.#devices.values()].reduce((sum, device) => sum + device.clients, 0);
  }

  /** Ends every connection to a snapshot. */
  close(reason: string): void {
    for (const device of this.#devices.values()) device.close(reason);
  }
}
