/**
 * The few kinds of error that sealbd raises, split by what the caller does about them.
 * `code` is stable: the NBD errno map, the CLI's exit codes and the tests depend on it.
 */
export type ErrorCode =
  // Answers of a block device; the NBD server maps them to the wire one to one.
  | 'EIO'
  | 'ENOSPC'
  | 'EINVAL'
  | 'EPERM'
  | 'ENOTSUP'
  | 'ENOMEM'
  | 'ESHUTDOWN'
  // Answers to an operator.
  | 'USAGE' // bad flag, config key or name: exit 2
  | 'NOT_FOUND' // no such volume, job, key: exit 1
  | 'CONFLICT' // exists already, or is in the wrong state: exit 1
  | 'FAILED' // the operation failed: exit 1
  | 'UNREACHABLE' // no daemon behind the admin socket: exit 3
  | 'KEY_UNAVAILABLE' // refused, missing or unreachable key: exit 4
  | 'INTEGRITY'; // something stored does not authenticate: exit 5

export class SealbdError extends Error {
  readonly code: ErrorCode;
  /** Byte offset on the device of the first block concerned, where one is known. */
  readonly deviceOffset: number | undefined;

  constructor(code: ErrorCode, message: string, options: { cause?: unknown; deviceOffset?: number } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'SealbdError';
    this.code = code;
    this.deviceOffset = options.deviceOffset;
  }
}

export function isSealbdError(error: unknown, code?: ErrorCode): error is SealbdError {
  return error instanceof SealbdError && (code === undefined || error.code === code);
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `errno` name of a failed system call ('ENOSPC', 'ENOENT', ...), or undefined. */
export function errnoOf(error: unknown): string | undefined {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') return error.code;
  return undefined;
}
