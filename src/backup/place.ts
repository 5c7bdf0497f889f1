/**
 * Where a backup lies, so that one that is gone can be told from one whose file system is not mounted, or not readable: the
 * directory above it is known again by device, inode and the time of its birth.
 */
import type { BigIntStats } from 'node:fs';
import { lstat, readdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errnoOf, messageOf } from '../base/errors.js';

/** Decimal numbers, since they need 64 bits; nanoseconds since 1970. */
export interface Place {
  readonly dev: string;
  readonly ino: string;
  readonly birthtimeNs: string;
}

/** The directory that `path` is in. Rejects with Node's error where it can't be looked at. */
export async function placeOf(path: string): Promise<Place> {
  const { dev, ino, birthtimeNs }: BigIntStats = await stat(dirname(path), { bigint: true });
  return { dev: String(dev), ino: String(ino), birthtimeNs: String(birthtimeNs) };
}

/** Undefined where nothing is at `path` any more, for sure; else why that is not known. Never rejects. */
export async function whyNotGone(path: string, was: Place | undefined): Promise<string | undefined> {
  const above = dirname(path);
  if (was === undefined) return `which directory ${above} was then is not known`;
  // Device and inode numbers are given again, as to the next file system that is mounted there.
  if (was.birthtimeNs === '0') return `the file system of ${above} does not tell directories by their birth`;
  try {
    // Twice: what is looked at in between may be mounted, or go, meanwhile.
    if (!isSame(await placeOf(path), was)) return another(above);
    await readdir(above);
    if (await isThere(path)) return 'something is there that is not this backup, or can not be read as one';
    return isSame(await placeOf(path), was) ? undefined : another(above);
  } catch (error) {
    return messageOf(error);
  }
}

function another(above: string): string {
  return `${above} is another directory than then, as one is whose file system is not mounted`;
}

function isSame(one: Place, other: Place): boolean {
  return one.dev === other.dev && one.ino === other.ino && one.birthtimeNs === other.birthtimeNs;
}

/** Whether something has that name, or it can't be told: the file system that it would be on does not answer, for instance. */
export async function mayBeThere(path: string): Promise<boolean> {
  return isThere(path).catch(() => true);
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return false;
  }
}
