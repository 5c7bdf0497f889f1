/** Which volumes NBD clients find, and what they are told about the others. */
import { SealbdError } from '../base/errors.js';
import type { BlockDevice } from '../device/block-device.js';
import type { ExportEntry, ExportSource } from '../nbd/exports.js';
import type { VolumeManager } from './volume-manager.js';

const DEFAULT_NAME = 'default';
/** NAME@SNAP: no name of a volume or a snapshot has this sign. */
const SNAPSHOT_SIGN = '@';

/** What the name of an export names: a volume, or a snapshot of it. */
export function parseExportName(name: string): {
  readonly volumeName: string;
  readonly snapshotName: string | undefined;
} {
  const at = name.indexOf(SNAPSHOT_SIGN);
  if (at < 0) return { volumeName: name, snapshotName: undefined };
  return { volumeName: name.slice(0, at), snapshotName: name.slice(at + 1) };
}

export class VolumeExports implements ExportSource {
  readonly #volumes: VolumeManager;

  constructor(volumes: VolumeManager) {
    this.#volumes = volumes;
  }

  lookup(name: string): BlockDevice | SealbdError | undefined {
    const { volumeName, snapshotName } = parseExportName(name);
    const volume = this.#volumes.find(volumeName);
    if (volume === undefined) return undefined;
    const { device } = volume;
    if (device === undefined || device.state === 'stopped')
      return new SealbdError('ESHUTDOWN', `volume "${volumeName}" is ${volume.state}`);
    return snapshotName === undefined ? device : device.snapshots.device(snapshotName);
  }

  /** Volumes that can be attached when their turn comes, each with its snapshots. */
  *list(): Iterable<ExportEntry> {
    for (const { device } of this.#volumes.list()) {
      if (device === undefined) continue;
      for (const { name, description } of [device, ...device.snapshots.devices()])
        yield { name, description };
    }
  }

  /** The volume named "default", else the only one. */
  get defaultName(): string | undefined {
    if (this.#volumes.find(DEFAULT_NAME) !== undefined) return DEFAULT_NAME;
    const all = this.#volumes.list();
    return all.length === 1 ? all[0].name : undefined;
  }
}
