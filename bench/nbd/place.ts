/** Where a group has its servers: a directory on the medium that is measured, and every process that it starts. */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FIO_MISSING, type FioOptions } from '../../src/cli/bench/fio.js';
import type { GroupOptions } from '../result.js';
import { Programs } from './processes.js';
import { isInstalled, type Place, type Server } from './servers.js';

const ROOT = fileURLToPath(new URL('../../../..', import.meta.url));

/** What fio is to do with the volume of a server, all of it. */
export function wholeVolume({ programs, sizeBytes }: Place, { uri }: Server): FioOptions {
  return { uri, sizeBytes, signal: programs.signal };
}

/** Measures in a place of its own, with volumes of `sizeBytes`. All of it is gone afterwards, however this process ends. */
export async function inPlace<T>(
  options: GroupOptions,
  sizeBytes: number,
  measure: (place: Place) => Promise<T>,
): Promise<T> {
  if (!isInstalled('fio')) throw new Error(FIO_MISSING);
  const directory = mkdtempSync(join(options.directory, 'sealbd-bench-'));
  const programs = new Programs();
  // Also where a signal ends the run: servers that were killed may take a moment to let go.
  process.once('exit', () => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
  try {
    return await measure({ programs, root: ROOT, directory, sizeBytes });
  } finally {
    await programs.end();
  }
}
