import { constants } from 'node:fs';
import { lstat, mkdir, open, readdir, rename, rm, stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, SealbdError } from '../base/errors.js';
import { SMALL_FILE_BYTES_MAX } from '../base/limits.js';
import { syncDirectory } from '../base/sync-directory.js';
import { addon } from '../native/addon.js';
import { isDiskFull } from './disk-full.js';
import { FsFile, openRegular, writeFully } from './fs-file.js';
import type { Store, StoreFile } from './store.js';

/** Space kept for the replacement of one small file (superblock, checkpoint root) when the disk is full. */
const SMALL_RESERVE_NAME = 'reserve-small';
const SMALL_RESERVE_BYTES = 256 * 1024;

/** Small files that exist twice. */
const COPIED = /^(superblock|checkpoint)(\.bak)?$/;
/** What takes the place of another file: one half written, or one that waited to be proven. */
const REPLACEMENT = /\.(tmp|new)$/;

/** The replacement under way in each directory, and those behind it. */
const replacements = new Map<string, Promise<void>>();

/** A directory of the local filesystem. Directories are mode 0700, files 0600. */
export class FsStore implements Store {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** The directory as it is, for looking at it: what a crash left in it is not put in order. */
  static at(path: string): FsStore {
    return new FsStore(path);
  }

  static async open(path: string, options: { create?: boolean } = {}): Promise<FsStore> {
    if (options.create === true) await mkdir(path, { recursive: true, mode: 0o700 });
    if (!(await stat(path)).isDirectory()) throw new Error(`${path} is not a directory`);
    const store = new FsStore(path);
    await store.#inTurn(() => store.#finishReplacement());
    return store;
  }

  list(): Promise<string[]> {
    return readdir(this.path);
  }

  async readSmall(name: string): Promise<Buffer | undefined> {
    try {
      const handle = await openRegular(this.path, name, constants.O_RDONLY);
      try {
        const { size } = await handle.stat();
        if (size > SMALL_FILE_BYTES_MAX) throw new SealbdError('INTEGRITY', `${name} has ${size} bytes`);
        return await handle.readFile();
      } finally {
        await handle.close();
      }
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return undefined;
      throw error;
    }
  }

  replaceSmall(name: string, bytes: Uint8Array): Promise<void> {
    return this.#inTurn(() => this.#replace(name, bytes));
  }

  promoteSmall(from: string, to: string): Promise<void> {
    return this.#inTurn(async () => {
      if (COPIED.test(to)) await this.#refillReserve(to);
      await this.rename(from, to);
      await this.#settleReserve();
    });
  }

  discardSmall(name: string): Promise<void> {
    return this.#inTurn(async () => {
      await this.#refillReserve(name);
      await this.remove(name);
      await this.#settleReserve();
    });
  }

  /** One at a time in a directory, whoever asks: they share the reserve. */
  #inTurn(step: () => Promise<void>): Promise<void> {
    const before = replacements.get(this.path) ?? Promise.resolve();
    const work = before.then(step);
    const done = work.catch(() => undefined); // The caller sees it; the next one only waits for its turn.
    replacements.set(this.path, done);
    void done.then(() => {
      if (replacements.get(this.path) === done) replacements.delete(this.path);
    });
    return work;
  }

  async #replace(name: string, bytes: Uint8Array): Promise<void> {
    const temporary = `${name}.tmp`;
    await this.#clear(temporary);
    try {
      await this.#writeTemporary(temporary, bytes, 'create');
    } catch (error) {
      if (!isDiskFull(error)) throw error;
      await this.#clear(temporary);
      return this.#replaceFromReserve(name, bytes, error);
    }
    await this.rename(temporary, name);
    await this.syncDirectory();
    await this.#keepSmallReserve();
  }

  /**
   * The reserve becomes the new file, and the old file the next reserve, so that no block is given away in between. For an
   * instant the name is missing: `#finishReplacement` puts that right after a crash, and such files have a second copy.
   */
  async #replaceFromReserve(name: string, bytes: Uint8Array, full: unknown): Promise<void> {
    const temporary = `${name}.tmp`;
    await this.#clearForeignReserve();
    if (!(await this.#renameIfThere(SMALL_RESERVE_NAME, temporary))) throw full;
    try {
      await this.#writeTemporary(temporary, bytes, 'reuse');
    } catch (error) {
      await this.rename(temporary, SMALL_RESERVE_NAME);
      throw error;
    }
    if (COPIED.test(name)) await this.#renameIfThere(name, SMALL_RESERVE_NAME);
    await this.rename(temporary, name);
    await this.#settleReserve();
  }

  /** A reserve that was used up, and may be there without space of its own, is made of a file that is on its way out. */
  async #refillReserve(from: string): Promise<void> {
    await this.#clearForeignReserve();
    if ((await this.#blocksOf(SMALL_RESERVE_NAME)) < (await this.#blocksOf(from)))
      await this.#renameIfThere(from, SMALL_RESERVE_NAME);
  }

  async #blocksOf(name: string): Promise<number> {
    try {
      return (await lstat(join(this.path, name))).blocks;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return 0;
      throw error;
    }
  }

  async #settleReserve(): Promise<void> {
    await this.syncDirectory();
    await this.#wipeReserve();
    await this.#keepSmallReserve();
  }

  /** What was replaced may hold a wrapped key that is to be forgotten. */
  async #wipeReserve(): Promise<void> {
    await this.#clearForeignReserve();
    try {
      const handle = await openRegular(this.path, SMALL_RESERVE_NAME, constants.O_RDWR);
      try {
        const content = await handle.readFile();
        if (content.every((byte) => byte === 0)) return;
        await writeFully(handle, new Uint8Array(content.length), 0);
        await handle.datasync();
      } finally {
        await handle.close();
      }
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
  }

  /** Removes what has the reserve's name and was not made as one: a link, a pipe, another name of somebody's file. */
  async #clearForeignReserve(): Promise<void> {
    try {
      const found = await lstat(join(this.path, SMALL_RESERVE_NAME));
      if (found.isFile() && found.nlink === 1 && found.size <= SMALL_FILE_BYTES_MAX) return;
      await this.#clear(SMALL_RESERVE_NAME);
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
    }
  }

  /** Frees a name that is the store's own, whatever it was given to. */
  #clear(name: string): Promise<void> {
    return rm(join(this.path, name), { recursive: true, force: true });
  }

  /** After a crash in a replacement on a full disk: a name that had become the reserve gets its new file. */
  async #finishReplacement(): Promise<void> {
    const names = new Set(await this.list());
    for (const name of names) {
      if (!REPLACEMENT.test(name)) continue;
      const target = name.replace(REPLACEMENT, '');
      if (!COPIED.test(target) || names.has(target) || !names.has(SMALL_RESERVE_NAME)) continue;
      await this.rename(name, target);
      names.add(target);
      await this.syncDirectory();
    }
    await this.#wipeReserve();
  }

  async #writeTemporary(name: string, bytes: Uint8Array, how: 'create' | 'reuse'): Promise<void> {
    const flags = constants.O_RDWR | (how === 'create' ? constants.O_CREAT | constants.O_EXCL : 0);
    const handle = await openRegular(this.path, name, flags);
    try {
      await writeFully(handle, bytes, 0);
      await handle.truncate(bytes.length);
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  async #renameIfThere(from: string, to: string): Promise<boolean> {
    try {
      await this.rename(from, to);
      return true;
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return false;
      throw error;
    }
  }

  /** A reserve of full size, where the disk has room for one. */
  async #keepSmallReserve(): Promise<void> {
    await this.#clearForeignReserve();
    try {
      const handle = await openRegular(this.path, SMALL_RESERVE_NAME, constants.O_RDWR | constants.O_CREAT);
      try {
        await addon.fileAllocate(handle.fd, SMALL_RESERVE_BYTES);
      } finally {
        await handle.close();
      }
    } catch (error) {
      if (!isDiskFull(error)) throw error;
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

  syncDirectory(): Promise<void> {
    return syncDirectory(this.path);
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
    const flags = access === 'read' ? constants.O_RDONLY : constants.O_RDWR;
    return new FsFile(name, await openRegular(this.path, name, flags));
  }
}
