/** Every volume of the data directory: opening, creating, resizing, starting, stopping, deleting. */

import { type Clock, within } from '../base/clock.js';
import { messageOf, SealbdError } from '../base/errors.js';
import { STOP_DEADLINE_MS, VOLUMES_MAX } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { RandomSource } from '../base/random.js';
import { formatSize } from '../base/units.js';
import { backUpHeader, restoreHeader } from '../keys/header-backup.js';
import type { HeaderPins } from '../keys/header-unwrap.js';
import type { Superblock } from '../keys/superblock.js';
import type { VolumeHeader } from '../keys/volume-header.js';
import type { KeyProviders } from '../kms/registry.js';
import type { Engine, EngineVolume } from './engine.js';
import type { Jobs } from './jobs.js';
import { KeysUnderWay } from './keys-under-way.js';
import type { ManagedVolume } from './managed-volume.js';
import { NewKeys } from './new-keys.js';
import { Serial } from './serial.js';
import { makeVolume } from './volume-builder.js';
import {
  type Actor,
  restoreEvent,
  SHUTDOWN,
  type Snapshot,
  STARTUP,
  snapshotOf,
  type VolumeEvent,
  WATCHDOG,
} from './volume-events.js';
import type { VolumeFiles } from './volume-files.js';
import { assertSize, type CreateVolumeRequest, resolveKeyUri } from './volume-request.js';
import { VolumeSet } from './volume-set.js';
import { openAtStart, openInLanes, SilentServices } from './volume-startup.js';

export interface VolumeManagerOptions {
  readonly files: VolumeFiles;
  readonly engine: Engine;
  readonly providers: KeyProviders;
  readonly jobs: Jobs;
  readonly pins: ReadonlyMap<string, HeaderPins>;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Logger;
  readonly observer: VolumeObserver;
}

/** Learns about every operation when it has ended, well or not. */
export interface VolumeObserver {
  settled(
    name: string,
    before: Snapshot,
    volume: ManagedVolume | undefined,
    by: Actor,
    volumes: VolumeManager,
  ): void;
  /** Learns at once about DEKs that were made, wrapped anew or destroyed. */
  deksChanged(name: string, before: Superblock, after: Superblock, by: Actor): void;
  /** Learns of what comparing does not tell. */
  record(event: VolumeEvent): void;
}

/** The marker of a volume that is to stay stopped, or not, could not be written in time. */
class Unanswered extends SealbdError {
  constructor(name: string, stopped: boolean) {
    const after = stopped
      ? 'its keys are wiped, but it may open again when the daemon is started again'
      : 'it stays as it was';
    super('FAILED', `the store of volume "${name}" did not answer in ${STOP_DEADLINE_MS} ms: ${after}`);
  }
}

export class VolumeManager {
  readonly #options: VolumeManagerOptions;
  readonly #volumes: VolumeSet;
  readonly #newKeys: NewKeys;
  readonly #serial = new Serial();
  /** Of those who put volumes under keys. */
  readonly keysUnderWay = new KeysUnderWay();
  #closing = false;

  constructor(options: VolumeManagerOptions) {
    this.#options = options;
    this.#volumes = new VolumeSet(options);
    this.#newKeys = new NewKeys(options.providers);
  }

  /** Opens every volume that is not marked stopped. One that does not open does not keep the others from it. */
  async openAll(): Promise<void> {
    const { files, log, providers } = this.#options;
    for (const { directory, problem } of await files.eraseUnfinished()) {
      if (problem === undefined) log.warn({ directory }, 'erased what a crash left unfinished');
      else log.error({ directory, reason: problem }, 'could not erase what a crash left unfinished');
    }
    const names = await files.list();
    if (names.length > VOLUMES_MAX) throw new SealbdError('FAILED', `more than ${VOLUMES_MAX} volumes`);
    const ready: ManagedVolume[] = [];
    for (const name of names) if (await this.#volumes.addAtStart(name)) ready.push(this.get(name));
    const silent = new SilentServices(providers);
    await openInLanes(ready, providers, (volume) => {
      return this.#run(volume.name, STARTUP, () => openAtStart(volume, silent, log));
    });
  }

  list(): ManagedVolume[] {
    return this.#volumes.list();
  }

  find(name: string): ManagedVolume | undefined {
    return this.#volumes.find(name);
  }

  get(name: string): ManagedVolume {
    return this.#volumes.get(name);
  }

  /** Looks at a volume between the operations on it; undefined where it is gone by then. */
  lookAt<T>(name: string, look: (volume: ManagedVolume) => Promise<T>): Promise<T | undefined> {
    return this.#serial.run(name, async () => {
      const volume = this.find(name);
      return volume === undefined ? undefined : look(volume);
    });
  }

  /** All or nothing. */
  async create(request: CreateVolumeRequest, by: Actor): Promise<ManagedVolume> {
    const { name } = request;
    const keyUri = resolveKeyUri(request, this.#options.pins.get(name));
    const create = () => this.#run(name, by, () => this.#create(request, keyUri, by));
    return request.cipher === 'none'
      ? create()
      : this.keysUnderWay.during({ volume: name, to: keyUri }, create);
  }

  async #create(request: CreateVolumeRequest, keyUri: string, by: Actor): Promise<ManagedVolume> {
    const { name, sizeBytes, cipher } = request;
    const { log, observer } = this.#options;
    this.assertFree(name);
    await makeVolume(request, keyUri, this.#newKeys, this.#options, (resolvedKeyId) => {
      observer.record({ event: 'make-local', volume: null, uuid: null, by, keyUri, resolvedKeyId });
    });
    const volume = await this.#volumes.add(name);
    await volume.open();
    log.info({ volume: name, sizeBytes, cipher, keyUri }, 'created');
    return volume;
  }

  /** CONFLICT where a volume of that name can't be made now. */
  assertFree(name: string): void {
    if (this.find(name) !== undefined) throw new SealbdError('CONFLICT', `volume "${name}" exists already`);
    if (this.#volumes.size >= VOLUMES_MAX)
      throw new SealbdError('CONFLICT', `there are ${VOLUMES_MAX} volumes already`);
  }

  /** Takes in a volume whose files were made in a directory of its own, which `publish` gives its name, and opens it. */
  adopt(name: string, by: Actor, publish: () => Promise<void>): Promise<ManagedVolume> {
    return this.#run(name, by, async () => {
      this.assertFree(name);
      await publish();
      const volume = await this.#volumes.add(name);
      await volume.open();
      return volume;
    });
  }

  resize(name: string, sizeBytes: number, shrink: boolean, by: Actor): Promise<ManagedVolume> {
    return this.#run(name, by, async () => {
      const volume = this.get(name);
      assertSize(sizeBytes);
      if (volume.state !== 'serving')
        throw new SealbdError('CONFLICT', `volume "${name}" is ${volume.state}`);
      const current = volume.superblock!.sizeBytes;
      if (sizeBytes < current && !shrink) {
        const change = `from ${formatSize(current)} to ${formatSize(sizeBytes)}`;
        throw new SealbdError('USAGE', `${change} destroys what lies behind; --shrink allows it`);
      }
      await volume.resize(sizeBytes);
      this.#options.log.info({ volume: name, from: current, to: sizeBytes }, 'resized');
      return volume;
    });
  }

  /** Serving already is fine. A failed volume that still reads is opened anew. */
  start(name: string, by: Actor): Promise<ManagedVolume> {
    return this.#run(name, by, async () => {
      const volume = await this.#volumes.ready(name);
      if (volume.state === 'serving') return volume;
      const { waiting } = volume;
      this.#options.jobs.abortAll(name);
      await this.#mark(volume, false);
      await this.#closeFailed(volume);
      try {
        await volume.open();
      } catch (error) {
        // Who asked too early has not asked for less than before: it still opens by itself.
        if (waiting && volume.keyCheck?.state === 'unreachable') volume.waitForKey();
        this.#options.log.error(
          { volume: name, state: volume.state, reason: messageOf(error) },
          'does not open',
        );
        throw error;
      }
      this.#options.log.info({ volume: name }, 'started');
      return volume;
    });
  }

  /**
   * Lasts over a restart. The marker comes first: a crash on the way must not bring the volume back. A store that does not answer
   * keeps neither from the deadline: the keys are wiped then, and it rejects.
   */
  stop(name: string, by: Actor): Promise<ManagedVolume> {
    return this.#run(name, by, async () => {
      const { clock, jobs, log } = this.#options;
      const volume = this.get(name);
      const started = clock.monotonic();
      let late: unknown;
      await this.#mark(volume, true).catch((error: unknown) => {
        if (!(error instanceof Unanswered)) throw error;
        late = error;
      });
      jobs.abortAll(name);
      const leftMs = Math.max(0, STOP_DEADLINE_MS - (clock.monotonic() - started));
      if (late !== undefined) await this.#closeFailed(volume, leftMs);
      else await volume.close(leftMs);
      if (late !== undefined) throw late;
      log.info({ volume: name }, 'stopped; its keys are wiped');
      return volume;
    });
  }

  #mark(volume: ManagedVolume, stopped: boolean): Promise<void> {
    const { clock } = this.#options;
    const late = () => new Unanswered(volume.name, stopped);
    return within(clock, STOP_DEADLINE_MS, volume.setMarkedStopped(stopped), late);
  }

  /** Stops a volume whose key was taken away, unless it was stopped or opened since `epoch`. Does not last over a restart. */
  closeForKey(name: string, epoch: number, reason: string): Promise<void> {
    return this.#run(name, WATCHDOG, async () => {
      const volume = this.find(name);
      if (volume?.epoch !== epoch) return;
      const { jobs, log } = this.#options;
      log.error({ volume: name, reason }, 'the key is not to be used any more: stopping');
      jobs.abortAll(name);
      await volume.closeKeyInvalid(reason);
      log.error({ volume: name, state: volume.state, reason }, 'stopped; its keys are wiped');
    });
  }

  /** Opens a volume whose key came back, unless it was opened or stopped since `epoch`. */
  openForKey(name: string, epoch: number): Promise<void> {
    return this.#run(name, WATCHDOG, async () => {
      const volume = this.find(name);
      if (volume?.epoch !== epoch) return;
      await volume.open();
      this.#options.log.info({ volume: name }, 'serving again: its key came back');
    });
  }

  delete(name: string, by: Actor): Promise<void> {
    return this.#run(name, by, async () => {
      const volume = this.get(name);
      this.#options.jobs.abortAll(name);
      await this.#closeFailed(volume);
      await this.#options.files.erase(name);
      this.#volumes.remove(name);
      this.#options.log.warn({ volume: name }, 'deleted; its wrapped keys were destroyed first');
    });
  }

  backUpHeader(name: string): Promise<Uint8Array> {
    return this.#serial.run(name, () => backUpHeader(this.get(name).store));
  }

  restoreHeader(name: string, file: Uint8Array, force: boolean, by: Actor): Promise<ManagedVolume> {
    const restore = () => this.#run(name, by, () => this.#restoreHeader(name, file, force, by));
    return this.keysUnderWay.during({ volume: name, to: 'the key of a header backup' }, restore);
  }

  async #restoreHeader(name: string, file: Uint8Array, force: boolean, by: Actor): Promise<ManagedVolume> {
    const volume = this.get(name);
    if (volume.device !== undefined)
      throw new SealbdError('CONFLICT', `volume "${name}" is ${volume.state}: stop it first`);
    const { providers, pins, observer } = this.#options;
    const options = { store: volume.store, providers, pins: pins.get(name) ?? {}, file, force };
    observer.record(restoreEvent(name, await restoreHeader(options), by));
    await volume.checkKey();
    this.#options.log.warn({ volume: name, force }, 'superblock restored from a backup');
    return volume;
  }

  /** Has something done with a volume in its turn among the operations on it. */
  operate<T>(name: string, by: Actor, operation: (volume: ManagedVolume) => Promise<T>): Promise<T> {
    return this.#run(name, by, () => operation(this.get(name)));
  }

  /** Has the wraps of a volume's DEKs changed, whether it is open or not. */
  changeKeys(
    name: string,
    by: Actor,
    change: (header: VolumeHeader, volume: ManagedVolume) => Promise<void>,
  ): Promise<ManagedVolume> {
    return this.#run(name, by, async () => {
      const volume = this.get(name);
      await volume.withHeader(async (header) => {
        const before = header.superblock;
        try {
          await change(header, volume);
        } finally {
          // A change that failed on its way may hold all the same.
          if (header.superblock !== before)
            this.#options.observer.deksChanged(name, before, header.superblock, by);
        }
      });
      return volume;
    });
  }

  /** Has the DEKs of an open volume changed, in the superblock and in the engine. */
  changeDeks(
    name: string,
    by: Actor,
    change: (header: VolumeHeader, device: EngineVolume) => Promise<void>,
  ): Promise<ManagedVolume> {
    return this.changeKeys(name, by, (header, volume) => {
      if (volume.device === undefined)
        throw new SealbdError('CONFLICT', `volume "${name}" is ${volume.state}`);
      return change(header, volume.device);
    });
  }

  /** A fresh check of the key of a volume that is not open; an open one was checked when it opened. */
  checkKey(name: string, by: Actor): Promise<ManagedVolume> {
    return this.#run(name, by, async () => {
      const volume = this.get(name);
      if (volume.device === undefined) await volume.checkKey();
      return volume;
    });
  }

  /** For the end of the process. Rejects, after all were tried, where one could not be stopped cleanly. */
  async closeAll(): Promise<void> {
    this.#closing = true;
    this.#options.jobs.close();
    const closing = this.list().map((volume) => {
      return this.#serial.run(volume.name, () => this.#observed(volume.name, SHUTDOWN, () => volume.close()));
    });
    const failed = (await Promise.allSettled(closing)).filter((result) => result.status === 'rejected');
    for (const { reason } of failed)
      this.#options.log.error({ reason: messageOf(reason) }, 'a volume did not stop cleanly');
    if (failed.length > 0) throw new SealbdError('FAILED', `${failed.length} volumes did not stop cleanly`);
  }

  #run<T>(name: string, by: Actor, operation: () => Promise<T>): Promise<T> {
    return this.#serial.run(name, () => {
      if (this.#closing) throw new SealbdError('ESHUTDOWN', 'the daemon is shutting down');
      return this.#observed(name, by, operation);
    });
  }

  async #observed<T>(name: string, by: Actor, operation: () => Promise<T>): Promise<T> {
    const before = snapshotOf(this.find(name));
    try {
      return await operation();
    } finally {
      this.#options.observer.settled(name, before, this.find(name), by, this);
    }
  }

  /** What can't be flushed any more must not keep a failed volume from being deleted or opened anew. */
  async #closeFailed(volume: ManagedVolume, deadlineMs?: number): Promise<void> {
    try {
      await volume.close(deadlineMs);
    } catch (error) {
      this.#options.log.error({ volume: volume.name, reason: messageOf(error) }, 'did not stop cleanly');
    }
  }
}
