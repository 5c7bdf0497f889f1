import { errnoOf } from '../base/errors.js';

/** True for the errors of a full disk or an exhausted quota. */
export function isDiskFull(error: unknown): boolean {
  const code = errnoOf(error);
  return code === 'ENOSPC' || code === 'EDQUOT';
}
