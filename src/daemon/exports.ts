/** Which volumes NBD clients find, and what they are told about the others. */
import { SealbdError } from '../base/errors.js';
import type { BlockDevice } from '../device/block-device.js';
import type { ExportEntry, ExportSource } from '../nbd/exports.js';
import type { VolumeManager } from './volume-manager.js';

const DEFAULT_NAME = 'default';

export class VolumeExports implements ExportSource {
  readonly #volumes: VolumeManager;

  constructor(volumes: VolumeManager) {
    this.#volumes = volumes;
  }

  lookup(name: string): BlockDevice | SealbdError | undefined {
    const volume = this.#volumes.find(name);
    if (volume === undefined) return undefined;
    const { device } = volume;
    if (device !== undefined && device.state !== 'stopped') return device;
    return new SealbdError('ESHUTDOWN', `volume "${name}" is ${volume.state}`);
  }

  /** Volumes that can be attached now. */
  list(): ExportEntry[] {
    return this.#volumes.list().flatMap(({ device }) => {
      return device === undefined ? [] : [{ name: device.name, description: device.description }];
    });
  }

  /** The volume named "default", else the only one. */
  get defaultName(): string | undefined {
    if (this.#volumes.find(DEFAULT_NAME) !== undefined) return DEFAULT_NAME;
    const all = this.#volumes.list();
    return all.length === 1 ? all[0].name : undefined;
  }
}
