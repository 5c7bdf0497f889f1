/** Gives a file another name, in another store of the same file system. */
import { link } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf } from '../base/errors.js';
import type { Store } from './store.js';

/** Where links can not be: another file system, one that knows none, or too many of them. */
const NOT_HERE = ['EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP', 'EOPNOTSUPP'];

/** False where that can't be done. Durable after `to.syncDirectory`. */
export async function linkFile(from: Store, to: Store, name: string): Promise<boolean> {
  try {
    await link(join(from.path, name), join(to.path, name));
    return true;
  } catch (error) {
    if (NOT_HERE.includes(errnoOf(error) ?? '')) return false;
    throw error;
  }
}
