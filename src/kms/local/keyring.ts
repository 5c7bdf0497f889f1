/**
 * DIR/keyring.json, the keys of `local:`. The file is read for every use, so that a key which is taken out of it
 * is gone at the next check, and replaced atomically: temporary file, fsync, rename, fsync of the directory.
 */
import { constants, promises as fs } from 'node:fs';
import { dirname } from 'node:path';
import { errnoOf, messageOf, SealbdError } from '../../base/errors.js';
import { KEYRING_BYTES_MAX } from '../../base/limits.js';
import { syncDirectory } from '../../base/sync-directory.js';
import { addon, type KeyHandle } from '../../native/addon.js';
import { releaseSecret, secretBuffer } from '../../native/secret-buffer.js';
import { KmsError } from '../provider.js';
import { decodeKeyring, encodeKeyring, type LocalKey } from './keyring-codec.js';

const OTHERS_PERMISSIONS = 0o077;

export interface NewLocalKey {
  readonly name: string;
  readonly id: string;
  readonly createdAt: string;
}

export class Keyring {
  readonly path: string;
  #writes: Promise<void> = Promise.resolve();

  constructor(path: string) {
    this.path = path;
  }

  /** Calls `use` with the key of that name, whose handle is released afterwards. */
  async withKey<T>(name: string, use: (key: LocalKey) => T): Promise<T> {
    const keys = await this.#read();
    try {
      const key = keys?.find((candidate) => candidate.name === name);
      if (key !== undefined) return use(key);
      const where = keys === undefined ? `${this.path} does not exist` : `${this.path} has no key "${name}"`;
      throw new KmsError('refused', `local:${name} is missing: ${where}`);
    } finally {
      release(keys);
    }
  }

  async has(name: string): Promise<boolean> {
    const keys = await this.#read();
    release(keys);
    return keys?.some((key) => key.name === name) ?? false;
  }

  /**
   * Adds a key unless one of the name is there already; returns whether it was added. `make` gives the handle,
   * and the ring releases it. Additions run one after another.
   */
  add(entry: NewLocalKey, make: () => KeyHandle): Promise<boolean> {
    const result = this.#writes.then(() => this.#add(entry, make));
    this.#writes = result.then(
      () => undefined,
      () => undefined,
    );
    return result;
  }

  async #add(entry: NewLocalKey, make: () => KeyHandle): Promise<boolean> {
    const keys = (await this.#read()) ?? [];
    try {
      if (keys.some((key) => key.name === entry.name)) return false;
      keys.push({ ...entry, handle: make() });
      await this.#replace(keys);
      return true;
    } finally {
      release(keys);
    }
  }

  /** Undefined where there is no file. */
  async #read(): Promise<LocalKey[] | undefined> {
    const text = await this.#readFile();
    if (text === undefined) return undefined;
    // Who empties the file took the keys away, as surely as who removes it.
    const kind = text.includes('"key"') ? 'damaged' : 'refused';
    try {
      return decodeKeyring(text);
    } catch (error) {
      if (error instanceof SealbdError) throw new KmsError(kind, `${this.path}: ${error.message}`, error);
      throw error;
    } finally {
      releaseSecret(text);
    }
  }

  async #readFile(): Promise<Buffer | undefined> {
    let file: fs.FileHandle | undefined;
    try {
      // A pipe that somebody planted would hold one of Node's few threads for ever.
      file = await fs.open(this.path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      const stat = await file.stat();
      // Whatever lies in its place says nothing about the key.
      if (!stat.isFile()) throw new KmsError('unreachable', `${this.path} is not a file`);
      if ((stat.mode & OTHERS_PERMISSIONS) !== 0) {
        const mode = (stat.mode & 0o777).toString(8).padStart(4, '0');
        throw new KmsError(
          'refused',
          `${this.path} has mode ${mode}; group and others must have no access (0600)`,
        );
      }
      if (stat.size > KEYRING_BYTES_MAX) {
        throw new KmsError('damaged', `${this.path} is larger than ${KEYRING_BYTES_MAX} bytes`);
      }
      return await readWhole(file, stat.size);
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      if (error instanceof KmsError) throw error;
      const kind = errnoOf(error) === 'EACCES' || errnoOf(error) === 'ELOOP' ? 'refused' : 'unreachable';
      throw new KmsError(kind, `cannot read ${this.path}: ${messageOf(error)}`, error);
    } finally {
      await file?.close();
    }
  }

  async #replace(keys: readonly LocalKey[]): Promise<void> {
    const temporary = `${this.path}.tmp`;
    const text = encodeKeyring(keys);
    try {
      await fs.rm(temporary, { force: true });
      const file = await fs.open(temporary, 'wx', 0o600);
      try {
        await file.writeFile(text);
        await file.sync();
      } finally {
        await file.close();
      }
      await fs.rename(temporary, this.path);
    } catch (error) {
      throw new SealbdError('FAILED', `cannot write ${this.path}: ${messageOf(error)}`, { cause: error });
    } finally {
      releaseSecret(text);
    }
    await syncDirectory(dirname(this.path));
  }
}

/** FileHandle.readFile would leave copies of its chunks behind. */
async function readWhole(file: fs.FileHandle, size: number): Promise<Buffer> {
  const text = secretBuffer(size);
  let done = 0;
  try {
    while (done < size) {
      const { bytesRead } = await file.read(text, done, size - done, done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
  } catch (error) {
    releaseSecret(text);
    throw error;
  }
  return text.subarray(0, done);
}

function release(keys: readonly LocalKey[] | undefined): void {
  for (const key of keys ?? []) addon.keyRelease(key.handle);
}
