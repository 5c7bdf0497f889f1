/** Lines of the audit log for what comparing a volume before and after does not tell: what was asked for and failed. */
import { messageOf } from '../base/errors.js';
import { formatUuid } from '../base/random.js';
import type { Actor, KeyOperation, VolumeEvent } from './volume-events.js';
import type { VolumeManager } from './volume-manager.js';

export class KeyAudit {
  readonly #volumes: VolumeManager;
  readonly record: (event: VolumeEvent) => void;

  constructor(volumes: VolumeManager, record: (event: VolumeEvent) => void) {
    this.#volumes = volumes;
    this.record = record;
  }

  /** Settles as `work` on a volume does. A failure is put down: what was asked for, of which key, by whom, why not. */
  ofVolume<T>(
    operation: KeyOperation,
    name: string,
    keyUri: string | undefined,
    by: Actor,
    work: () => Promise<T>,
  ): Promise<T> {
    const superblock = this.#volumes.find(name)?.superblock;
    const uuid = superblock === undefined ? null : formatUuid(superblock.uuid);
    return this.#attempt({ operation, volume: name, uuid, keyUri, by }, work);
  }

  /** The same for a `local:` key alone. */
  ofLocalKey<T>(operation: KeyOperation, keyUri: string, by: Actor, work: () => Promise<T>): Promise<T> {
    return this.#attempt({ operation, volume: null, uuid: null, keyUri, by }, work);
  }

  /** The same for what is known of backups. */
  ofKnownBackups<T>(
    operation: KeyOperation,
    path: string | undefined,
    by: Actor,
    work: () => Promise<T>,
  ): Promise<T> {
    return this.#attempt({ operation, volume: null, uuid: null, path, by }, work);
  }

  async #attempt<T>(asked: Omit<VolumeEvent, 'event' | 'reason'>, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      this.record({ event: 'failed', ...asked, reason: messageOf(error) });
      throw error;
    }
  }
}
