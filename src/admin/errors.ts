/** Errors over HTTP: the body carries the code, the status is for people and proxies. */
import { type ErrorCode, SealbdError } from '../base/errors.js';
import { errorSchema } from './schemas.js';

const STATUS_OF: Readonly<Record<ErrorCode, number>> = {
  USAGE: 400,
  EINVAL: 400,
  NOT_FOUND: 404,
  CONFLICT: 409,
  EPERM: 409,
  ENOTSUP: 409,
  INTEGRITY: 422,
  KEY_UNAVAILABLE: 424,
  EIO: 500,
  FAILED: 500,
  ESHUTDOWN: 503,
  UNREACHABLE: 503,
  ENOMEM: 507,
  ENOSPC: 507,
};

export function statusOf(code: ErrorCode): number {
  return STATUS_OF[code];
}

export function errorBody(code: ErrorCode, message: string) {
  return { error: { code, message } };
}

/** The error that a response's body carries; FAILED where it carries none. */
export function errorFrom(status: number, body: unknown): SealbdError {
  const parsed = errorSchema.safeParse(body);
  if (!parsed.success) return new SealbdError('FAILED', `the daemon answered with HTTP status ${status}`);
  const { code, message } = parsed.data.error;
  return new SealbdError(code in STATUS_OF ? (code as ErrorCode) : 'FAILED', message);
}
