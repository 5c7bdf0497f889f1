/** Files of a backup directory (docs/FORMAT.md, "Backup"). */
import { SealbdError } from '../base/errors.js';

export const MANIFEST = 'manifest';
export const MANIFEST_TEMPORARY = 'manifest.tmp';
export const INDEX = 'index';
export const MAP = 'map';
/** The first file to come and the last to go: what lies beside it is a backup's, and may be removed where there is no manifest. */
export const INCOMPLETE = 'incomplete';
/** In the header of the map. */
export const MAP_FILE_ID = 1;

const DATA = /^data-[0-9a-f]{16}$/;

export function dataFileName(segmentId: number): string {
  return `data-${segmentId.toString(16).padStart(16, '0')}`;
}

/** Whether an unfinished backup may have left it. */
export function isOwnName(name: string): boolean {
  return [MANIFEST_TEMPORARY, INDEX, MAP, INCOMPLETE].includes(name) || DATA.test(name);
}

export function damaged(path: string, problem: string, cause?: unknown): SealbdError {
  return new SealbdError('INTEGRITY', `${path}: ${problem}`, { cause });
}
