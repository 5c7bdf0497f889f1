/** Snapshots of volumes: what the admin API asks of them, in turn with the other operations on a volume. */
import { SealbdError } from '../base/errors.js';
import { NAME_PATTERN } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { formatUuid } from '../base/random.js';
import { isDiskFull } from '../store/disk-full.js';
import type { EngineSnapshot, EngineVolume } from './engine.js';
import type { Jobs } from './jobs.js';
import type { ManagedVolume } from './managed-volume.js';
import { openDevice } from './open-device.js';
import type { Actor, VolumeEvent } from './volume-events.js';
import type { VolumeManager } from './volume-manager.js';

export interface SnapshotOperationsOptions {
  readonly volumes: VolumeManager;
  readonly jobs: Jobs;
  readonly log: Logger;
  record(event: VolumeEvent): void;
}

export class SnapshotOperations {
  readonly #options: SnapshotOperationsOptions;

  constructor(options: SnapshotOperationsOptions) {
    this.#options = options;
  }

  /** Oldest first. */
  list(name: string): EngineSnapshot[] {
    return openDevice(this.#options.volumes.get(name)).snapshots.list();
  }

  async create(name: string, snapshot: string, by: Actor): Promise<EngineSnapshot> {
    if (!NAME_PATTERN.test(snapshot))
      throw new SealbdError('USAGE', `"${snapshot}" is no snapshot name: expected ${NAME_PATTERN.source}`);
    return this.#operate('snapshot-create', name, snapshot, by, async (volume) => {
      const device = openDevice(volume);
      await device.createSnapshot(snapshot);
      return find(device, snapshot);
    });
  }

  delete(name: string, snapshot: string, by: Actor): Promise<void> {
    return this.#operate('snapshot-delete', name, snapshot, by, (volume) => {
      return openDevice(volume).deleteSnapshot(snapshot);
    });
  }

  /** The volume is as it was then, in size too. CONFLICT while it has clients or jobs. */
  rollBack(name: string, snapshot: string, by: Actor): Promise<void> {
    return this.#operate('snapshot-rollback', name, snapshot, by, async (volume) => {
      find(openDevice(volume), snapshot);
      const job = this.#options.jobs.concerning(name);
      if (job !== undefined)
        throw new SealbdError(
          'CONFLICT',
          `job ${job.id} (${job.kind}) runs on volume "${name}": cancel it first`,
        );
      await volume.rollBack(snapshot);
    });
  }

  /** An event for each that was done. */
  #operate<T>(
    event: 'snapshot-create' | 'snapshot-delete' | 'snapshot-rollback',
    name: string,
    snapshot: string,
    by: Actor,
    operation: (volume: ManagedVolume) => Promise<T>,
  ): Promise<T> {
    const { volumes, log, record } = this.#options;
    return volumes.operate(name, by, async (volume) => {
      const result = await operation(volume).catch((error: unknown) => {
        if (!isDiskFull(error) || error instanceof SealbdError) throw error;
        throw new SealbdError('ENOSPC', 'no room for that on the disk', { cause: error });
      });
      const uuid = volume.superblock === undefined ? null : formatUuid(volume.superblock.uuid);
      record({ event, volume: name, uuid, by, snapshot });
      log.info({ volume: name, snapshot }, event);
      return result;
    });
  }
}

function find(device: EngineVolume, snapshot: string): EngineSnapshot {
  const found = device.snapshots.list().find((one) => one.name === snapshot);
  if (found === undefined) throw new SealbdError('NOT_FOUND', `no snapshot "${snapshot}"`);
  return found;
}
