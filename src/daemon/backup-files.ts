/**
 * The files of backups. They lie where an operator says, on a network mount perhaps that answers no more: whatever hangs there
 * holds few of the threads that read and write the volumes.
 */
import { Gate } from '../base/gate.js';
import { BACKUP_FILE_THREADS_MAX } from '../base/limits.js';
import { FsStore } from '../store/fs-store.js';
import { GatedStore } from '../store/gated-store.js';
import type { Store } from '../store/store.js';

export class BackupFiles {
  readonly #gate = new Gate(BACKUP_FILE_THREADS_MAX);

  /** Work on their file system that holds one thread at a time. It must not use the stores below. */
  run<T>(work: () => Promise<T>): Promise<T> {
    return this.#gate.run(work);
  }

  gated(store: Store): Store {
    return new GatedStore(store, this.#gate);
  }

  /** The directory as it is, for looking at it. */
  at(path: string): Store {
    return this.gated(FsStore.at(path));
  }
}
