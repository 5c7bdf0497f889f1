/**
 * The files of backups. They lie where an operator says, on a network mount perhaps that answers no more: whatever hangs there
 * holds one of the threads that read and write the volumes, and holds up what is on the same file system alone.
 */
import { readlink } from 'node:fs/promises';
import { Gate, type Turns } from '../base/gate.js';
import { BACKUP_FILE_THREADS_MAX } from '../base/limits.js';
import { FsStore } from '../store/fs-store.js';
import { GatedStore } from '../store/gated-store.js';
import { deviceOf, type Mounts, readMounts } from '../store/mounts.js';
import type { Store } from '../store/store.js';

export class BackupFiles {
  readonly #mounts: () => Mounts;
  /** One thread for each file system, by device; and so many for all of them. */
  readonly #places = new Map<string, Gate>();
  readonly #all = new Gate(BACKUP_FILE_THREADS_MAX);

  constructor(mounts: () => Mounts = readMounts) {
    this.#mounts = mounts;
  }

  /** Work at `path` that holds one thread at a time. It must not use the stores below. */
  async run<T>(path: string, work: () => Promise<T>): Promise<T> {
    return this.#at(await this.#deviceOf(path), work);
  }

  gated(store: Store): Store {
    let device: Promise<string> | undefined;
    const turns: Turns = {
      run: async (work) => {
        device ??= this.#deviceOf(store.path);
        return this.#at(await device, work);
      },
    };
    return new GatedStore(store, turns);
  }

  /** The directory as it is, for looking at it. */
  at(path: string): Store {
    return this.gated(FsStore.at(path));
  }

  #deviceOf(path: string): Promise<string> {
    return deviceOf(path, this.#mounts(), (device, at) => this.#at(device, () => readLink(at)));
  }

  #at<T>(device: string, work: () => Promise<T>): Promise<T> {
    let place = this.#places.get(device);
    if (place === undefined) {
      place = new Gate(1);
      this.#places.set(device, place);
    }
    return place.run(() => this.#all.run(work));
  }
}

/** What can't be looked at is no link here: whoever uses the path is told why. */
function readLink(path: string): Promise<string | undefined> {
  return readlink(path).catch(() => undefined);
}
