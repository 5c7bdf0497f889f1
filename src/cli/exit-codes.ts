/** The exit codes that scripts depend on. */
import { isSealbdError } from '../base/errors.js';

export const EXIT = {
  done: 0,
  failed: 1,
  usage: 2,
  unreachable: 3,
  keyUnavailable: 4,
  integrity: 5,
} as const;

export function exitCodeOf(error: unknown): number {
  return isSealbdError(error) ? exitCodeOfErrorCode(error.code) : EXIT.failed;
}

export function exitCodeOfErrorCode(code: string): number {
  switch (code) {
    case 'USAGE':
      return EXIT.usage;
    case 'UNREACHABLE':
      return EXIT.unreachable;
    case 'KEY_UNAVAILABLE':
      return EXIT.keyUnavailable;
    case 'INTEGRITY':
      return EXIT.integrity;
    default:
      return EXIT.failed;
  }
}
