/** Files that commands read and write, relative to the caller's directory. */
import { constants, promises as fs } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { errnoOf, messageOf, SealbdError } from '../base/errors.js';
import { syncDirectory } from '../base/sync-directory.js';

const FILE_BYTES_MAX = 2 * 1024 * 1024;

export async function readInput(path: string): Promise<Buffer> {
  const full = resolve(path);
  try {
    if ((await fs.stat(full)).size > FILE_BYTES_MAX) throw new Error(`larger than ${FILE_BYTES_MAX} bytes`);
    return await fs.readFile(full);
  } catch (error) {
    throw new SealbdError('FAILED', `cannot read ${path}: ${messageOf(error)}`, { cause: error });
  }
}

/** USAGE where something is there already: asked before the work is done. An empty file may be filled. */
export async function refuseExisting(path: string): Promise<void> {
  try {
    const stat = await fs.lstat(resolve(path));
    if (!stat.isFile() || stat.size > 0)
      throw new SealbdError('CONFLICT', `${path} exists already; it is not overwritten`);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}

/** Durable, mode 0600. What somebody puts there meanwhile, a link among it, is not written to. */
export async function writeOutput(path: string, bytes: Uint8Array | string): Promise<void> {
  const full = resolve(path);
  await refuseExisting(path);
  try {
    const file = await openNew(full);
    try {
      await file.chmod(0o600);
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await syncDirectory(dirname(full));
  } catch (error) {
    throw new SealbdError('FAILED', `cannot write ${path}: ${messageOf(error)}`, { cause: error });
  }
}

async function openNew(full: string): Promise<FileHandle> {
  try {
    return await fs.open(full, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
  }
  const file = await fs.open(full, constants.O_WRONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const stat = await file.stat();
  if (stat.isFile() && stat.size === 0) return file;
  await file.close();
  throw new Error('it exists by now');
}
