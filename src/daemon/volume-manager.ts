/** Every volume of the data directory: opening, creating, resizing, starting, stopping, deleting. */

import type { Clock } from '../base/clock.js';
import { messageOf, SealbdError } from '../base/errors.js';
import { VOLUMES_MAX } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { RandomSource } from '../base/random.js';
import { formatSize } from '../base/units.js';
import { backUpHeader, restoreHeader } from '../keys/header-backup.js';
import type { HeaderPins } from '../keys/header-unwrap.js';
import type { Superblock } from '../keys/superblock.js';
import type { VolumeHeader } from '../keys/volume-header.js';
import type { KeyProviders } from '../kms/registry.js';
import { FsStore } from '../store/fs-store.js';
import type { Engine, EngineVolume } from './engine.js';
import type { Jobs } from './jobs.js';
import { ManagedVolume } from './managed-volume.js';
import { Serial } from './serial.js';
import { buildVolume } from './volume-builder.js';
import { type Actor, SHUTDOWN, type Snapshot, STARTUP, snapshotOf, WATCHDOG } from './volume-events.js';
import type { VolumeFiles } from './volume-files.js';
import { assertSize, type CreateVolumeRequest, resolveKeyUri } from './volume-request.js';
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
}

export class VolumeManager {
  readonly #options: VolumeManagerOptions;
  readonly #volumes = new Map<string, ManagedVolume>();
  /** Volumes whose directory could not be put in order when the daemon started. */
  readonly #unready = new Set<string>();
  readonly #serial = new Serial();
  #closing = false;

  constructor(options: VolumeManagerOptions) {
    this.#options = options;
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
    for (const name of names) this.#volumes.set(name, await this.#manageAtStart(name));
    const silent = new SilentServices(providers);
    const ready = this.list().filter(({ name }) => !this.#unready.has(name));
    await openInLanes(ready, providers, (volume) => {
      return this.#run(volume.name, STARTUP, () => openAtStart(volume, silent, log));
    });
  }

  list(): ManagedVolume[] {
    return [...this.#volumes.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  find(name: string): ManagedVolume | undefined {
    return this.#volumes.get(name);
  }

  get(name: string): ManagedVolume {
    const volume = this.#volumes.get(name);
    if (volume === undefined) throw new SealbdError('NOT_FOUND', `no volume "${name}"`);
    return volume;
  }

  /** All or nothing: the volume is made in a directory of its own that gets its name when it is whole. */
  create(request: CreateVolumeRequest, by: Actor): Promise<ManagedVolume> {
    return this.#run(request.name, by, async () => {
      const { name } = request;
      const { files, pins } = this.#options;
      const keyUri = resolveKeyUri(request, pins.get(name));
      if (this.#volumes.has(name)) throw new SealbdError('CONFLICT', `volume "${name}" exists already`);
      if (this.#volumes.size >= VOLUMES_MAX)
        throw new SealbdError('CONFLICT', `there are ${VOLUMES_MAX} volumes already`);
      const temporary = await files.makeTemporary(name);
      try {
        await buildVolume(temporary, request, keyUri, this.#options);
        await files.publish(temporary, name);
      } catch (error) {
        await files.discardTemporary(temporary);
        throw error;
      }
      const volume = await this.#manage(name);
      this.#volumes.set(name, volume);
      await volume.open();
      this.#options.log.info(
        { volume: name, sizeBytes: request.sizeBytes, cipher: request.cipher, keyUri },
        'created',
      );
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
      const volume = await this.#ready(name);
      if (volume.state === 'serving') return volume;
      const { waiting } = volume;
      this.#options.jobs.abortAll(name);
      await volume.setMarkedStopped(false);
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

  /** Lasts over a restart. The marker comes first: a crash on the way must not bring the volume back. */
  stop(name: string, by: Actor): Promise<ManagedVolume> {
    return this.#run(name, by, async () => {
      const volume = this.get(name);
      await volume.setMarkedStopped(true);
      this.#options.jobs.abortAll(name);
      await volume.close();
      this.#options.log.info({ volume: name }, 'stopped; its keys are wiped');
      return volume;
    });
  }

  /** Stops a volume whose key was taken away, unless it was stopped or opened since `epoch`. Does not last over a restart. */
  closeForKey(name: string, epoch: number, reason: string): Promise<void> {
    return this.#run(name, WATCHDOG, async () => {
      const volume = this.#volumes.get(name);
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
      const volume = this.#volumes.get(name);
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
      this.#volumes.delete(name);
      this.#unready.delete(name);
      this.#options.log.warn({ volume: name }, 'deleted; its wrapped keys were destroyed first');
    });
  }

  backUpHeader(name: string): Promise<Uint8Array> {
    return this.#serial.run(name, () => backUpHeader(this.get(name).store));
  }

  restoreHeader(name: string, file: Uint8Array, force: boolean, by: Actor): Promise<ManagedVolume> {
    return this.#run(name, by, async () => {
      const volume = this.get(name);
      if (volume.device !== undefined)
        throw new SealbdError('CONFLICT', `volume "${name}" is ${volume.state}: stop it first`);
      const { providers, pins } = this.#options;
      await restoreHeader({ store: volume.store, providers, pins: pins.get(name) ?? {}, file, force });
      await volume.checkKey();
      this.#options.log.warn({ volume: name, force }, 'superblock restored from a backup');
      return volume;
    });
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
    this.#options.jobs.abortAll();
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
    const before = snapshotOf(this.#volumes.get(name));
    try {
      return await operation();
    } finally {
      this.#options.observer.settled(name, before, this.#volumes.get(name), by, this);
    }
  }

  async #manage(name: string): Promise<ManagedVolume> {
    return this.#over(name, await FsStore.open(this.#options.files.pathOf(name)));
  }

  #over(name: string, store: FsStore): ManagedVolume {
    const { engine, providers, clock, log, pins } = this.#options;
    const shared = { engine, providers, clock, log: log.child({ volume: name }) };
    return new ManagedVolume({ name, store, pins: pins.get(name) ?? {}, ...shared });
  }

  /** A directory that can't be put in order is one volume that failed. */
  async #manageAtStart(name: string): Promise<ManagedVolume> {
    try {
      const volume = await this.#manage(name);
      await volume.look();
      return volume;
    } catch (error) {
      this.#options.log.error({ volume: name, reason: messageOf(error) }, 'cannot be put in order');
      const volume = this.#over(name, FsStore.at(this.#options.files.pathOf(name)));
      volume.fail(error);
      this.#unready.add(name);
      return volume;
    }
  }

  /** The volume, once its directory is in order. */
  async #ready(name: string): Promise<ManagedVolume> {
    const volume = this.get(name);
    if (!this.#unready.has(name)) return volume;
    const ready = await this.#manage(name);
    this.#volumes.set(name, ready);
    this.#unready.delete(name);
    return ready;
  }

  /** What can't be flushed any more must not keep a failed volume from being deleted or opened anew. */
  async #closeFailed(volume: ManagedVolume): Promise<void> {
    try {
      await volume.close();
    } catch (error) {
      this.#options.log.error({ volume: volume.name, reason: messageOf(error) }, 'did not stop cleanly');
    }
  }
}
