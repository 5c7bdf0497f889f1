/** One file of a store, and how files are opened where others may have put something else in their place. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { SealbdError } from '../base/errors.js';
import { addon } from '../native/addon.js';
import type { FileIdentity, StoreFile } from './store.js';

/**
 * Who could write to the disk may have left links that lead out of the directory, and pipes: the former are never followed,
 * the latter do not hold up whoever opens them.
 */
const AS_IT_IS = constants.O_NOFOLLOW | constants.O_NONBLOCK;

export class FsFile implements StoreFile {
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

  reload(): Promise<void> {
    return addon.fileReload(this.fd);
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#handle.truncate(sizeBytes);
  }

  async size(): Promise<number> {
    return (await this.#handle.stat()).size;
  }

  async links(): Promise<number> {
    return (await this.#handle.stat()).nlink;
  }

  async identity(): Promise<FileIdentity> {
    const { dev, ino } = await this.#handle.stat({ bigint: true });
    return { dev, ino };
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

/**
 * Opens a file that is one: INTEGRITY for a pipe or a device that somebody put in place of ours, ELOOP for a link. A file that
 * is made has mode 0600.
 */
export async function openRegular(directory: string, name: string, flags: number): Promise<FileHandle> {
  const handle = await open(join(directory, name), flags | AS_IT_IS, 0o600);
  if ((await handle.stat()).isFile()) return handle;
  await handle.close();
  throw new SealbdError('INTEGRITY', `${name} is not a regular file`);
}

export async function writeFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
