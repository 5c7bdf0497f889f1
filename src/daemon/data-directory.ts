/** DIR and its lock. Whoever holds the lock is the only daemon on it; the kernel drops it with the process. */
import { constants, promises as fs } from 'node:fs';
import { join } from 'node:path';
import { messageOf, SealbdError } from '../base/errors.js';
import { addon } from '../native/addon.js';
import { openRegular } from '../store/fs-file.js';

/** What a daemon that was killed leaves in DIR itself: a socket half moved into place, a keyring half written. */
const LEFTOVER = /^(\.admin-.*|admin-listener\.sock|keyring\.json\.tmp)$/;

export class DataDirectory {
  readonly path: string;
  readonly #lock: fs.FileHandle;

  private constructor(path: string, lock: fs.FileHandle) {
    this.path = path;
    this.#lock = lock;
  }

  get volumesPath(): string {
    return join(this.path, 'volumes');
  }

  /** Makes the directory where it is missing (mode 0700). CONFLICT where another daemon has it. */
  static async open(path: string): Promise<DataDirectory> {
    let lock: fs.FileHandle | undefined;
    try {
      await fs.mkdir(join(path, 'volumes'), { recursive: true, mode: 0o700 });
      lock = await openRegular(path, 'lock', constants.O_RDWR | constants.O_CREAT);
      if (!addon.fileLock(lock.fd)) {
        throw new SealbdError('CONFLICT', `another daemon serves ${path}: its lock is taken`);
      }
      await removeLeftovers(path);
      return new DataDirectory(path, lock);
    } catch (error) {
      await lock?.close();
      if (error instanceof SealbdError) throw error;
      throw new SealbdError('FAILED', `cannot use the data directory ${path}: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }

  async close(): Promise<void> {
    await this.#lock.close();
  }
}

async function removeLeftovers(path: string): Promise<void> {
  for (const name of await fs.readdir(path)) {
    if (LEFTOVER.test(name)) await fs.rm(join(path, name), { recursive: true });
  }
}
