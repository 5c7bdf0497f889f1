/** Where a backup is to be made: anywhere but among the volumes, whatever links lead there. */
import { mkdir, realpath, rmdir } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, relative } from 'node:path';
import { errnoOf, messageOf, SealbdError } from '../base/errors.js';
import { FsStore } from '../store/fs-store.js';

/** USAGE where `path`, which need not be there yet, would lie in the directory of the volumes: a start erases what is no volume there. */
export async function assertOutside(volumesPath: string, path: string): Promise<void> {
  if (!isWithin(await realpath(volumesPath), await realPathOf(path))) return;
  throw new SealbdError('USAGE', `${path} is inside the directory of the volumes`);
}

/** The nearest directory above that is there, by its real path, and the rest as it will be made. */
async function realPathOf(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT' || dirname(path) === path) throw error;
    return join(await realPathOf(dirname(path)), basename(path));
  }
}

function isWithin(directory: string, path: string): boolean {
  const way = relative(directory, path);
  return way === '' || (way !== '..' && !way.startsWith('../') && !isAbsolute(way));
}

/**
 * The directory, made with those above it where they are missing, and the name of each durable. Where it turns out to lie among
 * the volumes, since a link came meanwhile, what was made is removed: USAGE.
 */
export async function makeTarget(volumesPath: string, path: string): Promise<FsStore> {
  const first = await mkdir(path, { recursive: true, mode: 0o700 });
  try {
    await assertOutside(volumesPath, path);
  } catch (error) {
    if (first !== undefined) await unmake(path, first);
    throw error;
  }
  for (const made of upTo(path, first ?? path)) await FsStore.at(dirname(made)).syncDirectory();
  return FsStore.open(path);
}

/** `path` and those above it, up to `first`. */
function* upTo(path: string, first: string): Generator<string> {
  for (let made = path; ; made = dirname(made)) {
    yield made;
    if (made === first || made === dirname(made)) return;
  }
}

/** Nothing is in them yet. What stays, the next start takes for a volume, or erases. */
async function unmake(path: string, first: string): Promise<void> {
  try {
    for (const made of upTo(path, first)) await rmdir(made);
  } catch (error) {
    const stays = `${path} is inside the directory of the volumes, and what was made there can not be removed`;
    throw new SealbdError('USAGE', `${stays}: ${messageOf(error)}`, { cause: error });
  }
}
