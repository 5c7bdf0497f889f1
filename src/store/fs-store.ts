import { constants } from 'node:fs';
import { type FileHandle, link, mkdir, open, readdir, rename, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../base/errors.js';
import { addon } from '../native/addon.js';
import type { Store, StoreFile } from './store.js';

/** Space kept for the replacement of one small file (superblock, checkpoint root) when the disk is full. */
const SMALL_RESERVE_NAME = 'reserve-small';
const SMALL_RESERVE_BYTES = 128 * 1024;

const SMALL_TEMPORARY = /^(superblock|checkpoint)(\.bak)?\.tmp$/;

/** Who could write to the disk may have left links that lead out of the directory: they are never followed. */
const NO_LINKS = constants.O_NOFOLLOW;

/** A directory of the local filesystem. Directories are mode 0700, files 0600. */
export class FsStore implements Store {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  static async open(path: string, options: { create?: boolean } = {}): Promise<FsStore> {
    if (options.create === true) await mkdir(path, { recursive: true, mode: 0o700 });
    if (!(await stat(path)).isDirectory()) throw new Error(`${path} is not a directory`);
    const store = new FsStore(path);
    await store.#recoverSmallReserve();
    return store;
  }

  list(): Promise<string[]> {
    return readdir(this.path);
  }

  async readSmall(name: string): Promise<Buffer | undefined> {
    try {
      const handle = await open(join(this.path, name), constants.O_RDONLY | NO_LINKS);
      return await handle.readFile().finally(() => handle.close());
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  async replaceSmall(name: string, bytes: Uint8Array): Promise<void> {
    const temporary = `${name}.tmp`;
    let fromReserve = false;
    try {
      await this.#writeTemporary(temporary, bytes, 'create');
    } catch (error) {
      const code = errnoOf(error);
      if (code !== 'ENOSPC' && code !== 'EDQUOT') throw error;
      await this.remove(temporary);
      if (!(await this.#takeSmallReserve(temporary))) throw error;
      fromReserve = true;
      await this.#writeTemporary(temporary, bytes, 'reuse');
      await this.#linkAsReserve(name);
    }
    await this.rename(temporary, name);
    await this.syncDirectory();
    if (fromReserve) await this.#wipeReserve();
    await this.#keepSmallReserve();
  }

  /** The file that is about to be replaced becomes the next reserve: no block is given away in between. */
  async #linkAsReserve(name: string): Promise<void> {
    try {
      await link(join(this.path, name), join(this.path, SMALL_RESERVE_NAME));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error; // There was no such file yet.
    }
  }

  /** What was replaced may hold a wrapped key that is to be forgotten. */
  async #wipeReserve(): Promise<void> {
    try {
      const handle = await open(join(this.path, SMALL_RESERVE_NAME), constants.O_RDWR | NO_LINKS);
      try {
        const { size } = await handle.stat();
        await writeFully(handle, new Uint8Array(Math.min(size, SMALL_RESERVE_BYTES)), 0);
        await handle.datasync();
      } finally {
        await handle.close();
      }
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
  }

  /** A crash in the middle of a replacement leaves its temporary file, which on a full disk is the reserve. */
  async #recoverSmallReserve(): Promise<void> {
    const names = await this.list();
    const unfinished = names.find((name) => SMALL_TEMPORARY.test(name));
    if (!names.includes(SMALL_RESERVE_NAME) && unfinished !== undefined) {
      await this.rename(unfinished, SMALL_RESERVE_NAME);
    }
    if (unfinished !== undefined) await this.#wipeReserve();
  }

  async #writeTemporary(name: string, bytes: Uint8Array, how: 'create' | 'reuse'): Promise<void> {
    const flags =
      constants.O_RDWR | NO_LINKS | (how === 'create' ? constants.O_CREAT | constants.O_TRUNC : 0);
    const handle = await open(join(this.path, name), flags, 0o600);
    try {
      await writeFully(handle, bytes, 0);
      await handle.truncate(bytes.length);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  async #takeSmallReserve(as: string): Promise<boolean> {
    try {
      await this.rename(SMALL_RESERVE_NAME, as);
      return true;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false;
      throw error;
    }
  }

  /** The replaced file's space usually makes the next reserve; on a full disk there is none until room returns. */
  async #keepSmallReserve(): Promise<void> {
    try {
      const file = await this.create(SMALL_RESERVE_NAME, SMALL_RESERVE_BYTES);
      await file.close();
    } catch (error) {
      const code = errnoOf(error);
      if (code !== 'EEXIST' && code !== 'ENOSPC' && code !== 'EDQUOT') throw error;
    }
  }

  async remove(name: string): Promise<void> {
    try {
      await unlink(join(this.path, name));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
  }

  rename(from: string, to: string): Promise<void> {
    return rename(join(this.path, from), join(this.path, to));
  }

  async syncDirectory(): Promise<void> {
    const handle = await open(this.path, constants.O_RDONLY | constants.O_DIRECTORY);
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  async create(name: string, sizeBytes: number): Promise<StoreFile> {
    const path = join(this.path, name);
    const handle = await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      if (sizeBytes > 0) await addon.fileAllocate(handle.fd, sizeBytes);
    } catch (error) {
      await handle.close();
      await unlink(path);
      throw error;
    }
    return new FsFile(name, handle);
  }

  async open(name: string, access: 'read' | 'write'): Promise<StoreFile> {
    const flags = (access === 'read' ? constants.O_RDONLY : constants.O_RDWR) | NO_LINKS;
    return new FsFile(name, await open(join(this.path, name), flags));
  }
}

class FsFile implements StoreFile {
  readonly name: string;
  readonly fd: number;
  readonly #handle: FileHandle;

  constructor(name: string, handle: FileHandle) {
    this.name = name;
    this.fd = handle.fd;
    this.#handle = handle;
  }

  write(bytes: Uint8Array, position: number): Promise<void> {
    return writeFully(this.#handle, bytes, position);
  }

  async read(bytes: Uint8Array, position: number): Promise<number> {
    let done = 0;
    while (done < bytes.length) {
      const { bytesRead } = await this.#handle.read(bytes, done, bytes.length - done, position + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return done;
  }

  sync(): Promise<void> {
    return this.#handle.datasync();
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#handle.truncate(sizeBytes);
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

async function writeFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
