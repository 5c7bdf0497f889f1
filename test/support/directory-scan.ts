/** Looks for secrets in every file of a directory that a daemon uses. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errnoOf } from '../../src/base/errors.js';
import { type Needle, scanFile } from './memory-scan.js';

const ATTEMPTS = 30;
const PAUSE_MS = 200;

/**
 * The needles that are there, as 'NEEDLE in FILE'. No client may write meanwhile: a file that gets another name during the
 * scan could escape it, so it is done again until the names stay.
 */
export async function scanDirectory(directory: string, needles: readonly Needle[]): Promise<string[]> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const before = listing(directory);
    const found = scanAll(directory, before, needles);
    if (found !== undefined && listing(directory).join() === before.join()) return found;
    await sleep(PAUSE_MS);
  }
  throw new Error(`${directory} never keeps still`);
}

/** Undefined where a file went away. */
function scanAll(
  directory: string,
  names: readonly string[],
  needles: readonly Needle[],
): string[] | undefined {
  try {
    return names.flatMap((name) => {
      const path = join(directory, name);
      return statSync(path).isFile() ? scanFile(path, needles).map((needle) => `${needle} in ${name}`) : [];
    });
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function listing(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort();
}
