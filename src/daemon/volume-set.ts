/** The volumes that the daemon knows, by name, each over its directory. */
import type { Clock } from '../base/clock.js';
import { messageOf, SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { HeaderPins } from '../keys/header-unwrap.js';
import type { KeyProviders } from '../kms/registry.js';
import { FsStore } from '../store/fs-store.js';
import type { Engine } from './engine.js';
import { ManagedVolume } from './managed-volume.js';
import type { VolumeFiles } from './volume-files.js';

export interface VolumeSetOptions {
  readonly files: VolumeFiles;
  readonly engine: Engine;
  readonly providers: KeyProviders;
  readonly pins: ReadonlyMap<string, HeaderPins>;
  readonly clock: Clock;
  readonly log: Logger;
}

export class VolumeSet {
  readonly #options: VolumeSetOptions;
  readonly #volumes = new Map<string, ManagedVolume>();
  /** Those whose directory could not be put in order when the daemon started. */
  readonly #unready = new Set<string>();

  constructor(options: VolumeSetOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#volumes.size;
  }

  /** Sorted by name. */
  list(): ManagedVolume[] {
    return [...this.#volumes.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  find(name: string): ManagedVolume | undefined {
    return this.#volumes.get(name);
  }

  /** NOT_FOUND where there is none. */
  get(name: string): ManagedVolume {
    const volume = this.#volumes.get(name);
    if (volume === undefined) throw new SealbdError('NOT_FOUND', `no volume "${name}"`);
    return volume;
  }

  async add(name: string): Promise<ManagedVolume> {
    const volume = this.#over(name, await FsStore.open(this.#options.files.pathOf(name)));
    this.#volumes.set(name, volume);
    return volume;
  }

  /** The same when the daemon starts. A directory that can't be put in order is one volume that failed: false. */
  async addAtStart(name: string): Promise<boolean> {
    try {
      await (await this.add(name)).look();
      return true;
    } catch (error) {
      const { log, files } = this.#options;
      log.error({ volume: name, reason: messageOf(error) }, 'cannot be put in order');
      const volume = this.#over(name, FsStore.at(files.pathOf(name)));
      volume.fail(error);
      this.#volumes.set(name, volume);
      this.#unready.add(name);
      return false;
    }
  }

  /** The volume, once its directory is in order. */
  async ready(name: string): Promise<ManagedVolume> {
    const volume = this.get(name);
    if (!this.#unready.has(name)) return volume;
    const ready = await this.add(name);
    this.#unready.delete(name);
    return ready;
  }

  remove(name: string): void {
    this.#volumes.delete(name);
    this.#unready.delete(name);
  }

  #over(name: string, store: FsStore): ManagedVolume {
    const { engine, providers, clock, log, pins } = this.#options;
    const shared = { engine, providers, clock, log: log.child({ volume: name }) };
    return new ManagedVolume({ name, store, pins: pins.get(name) ?? {}, ...shared });
  }
}
