/** The one map from errors to the numbers on the wire. */
import { isSealbdError, messageOf } from '../base/errors.js';
import { Errno } from './wire/constants.js';

export interface WireError {
  readonly errno: Errno;
  readonly message: string;
  /** Byte offset on the device of the first block concerned, where one is known. */
  readonly deviceOffset: number | undefined;
}

/** Anything that a device throws. What is not one of its codes is a mistake of ours and reads as EIO. */
export function wireErrorOf(error: unknown): WireError {
  if (!isSealbdError(error)) return { errno: Errno.EIO, message: messageOf(error), deviceOffset: undefined };
  return { errno: errnoOfCode(error.code), message: error.message, deviceOffset: error.deviceOffset };
}

function errnoOfCode(code: string): Errno {
  switch (code) {
    case 'ENOSPC':
      return Errno.ENOSPC;
    case 'EINVAL':
      return Errno.EINVAL;
    case 'EPERM':
      return Errno.EPERM;
    case 'ENOTSUP':
      return Errno.ENOTSUP;
    case 'ENOMEM':
      return Errno.ENOMEM;
    case 'ESHUTDOWN':
    // A key that went away stops the volume: the client learns that the server is going, as on shutdown.
    case 'KEY_UNAVAILABLE':
      return Errno.ESHUTDOWN;
    default:
      return Errno.EIO;
  }
}
