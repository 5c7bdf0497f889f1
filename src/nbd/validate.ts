/** What a request must satisfy before a device sees it. Pure: header and facts in, errno out. */
import { REQUEST_BYTES_MAX } from '../base/limits.js';
import { Command, CommandFlag, Errno } from './wire/constants.js';
import type { Request } from './wire/request.js';

export interface RequestContext {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  readonly structured: boolean;
  readonly allocation: boolean;
}

/** Command flags that a command may carry. FUA is accepted on every one, since it is advertised. */
function flagsAllowed(type: number, structured: boolean): number {
  switch (type) {
    case Command.READ:
      return CommandFlag.FUA | (structured ? CommandFlag.DF : 0);
    case Command.WRITE_ZEROES:
      return CommandFlag.FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO;
    case Command.BLOCK_STATUS:
      return CommandFlag.FUA | CommandFlag.REQ_ONE;
    default:
      return CommandFlag.FUA;
  }
}

export function validateRequest(request: Request, context: RequestContext): Errno {
  const { type, flags, offset, length } = request;
  if ((flags & ~flagsAllowed(type, context.structured)) !== 0) return Errno.EINVAL;
  const pastEnd = offset > context.sizeBytes || length > context.sizeBytes - offset;
  switch (type) {
    case Command.READ:
      return pastEnd || length > REQUEST_BYTES_MAX ? Errno.EINVAL : Errno.OK;
    case Command.WRITE:
      if (context.readOnly) return Errno.EPERM;
      if (length > REQUEST_BYTES_MAX) return Errno.EINVAL;
      return pastEnd ? Errno.ENOSPC : Errno.OK;
    case Command.WRITE_ZEROES:
      if (context.readOnly) return Errno.EPERM;
      return pastEnd ? Errno.ENOSPC : Errno.OK;
    case Command.TRIM:
      if (context.readOnly) return Errno.EPERM;
      return pastEnd ? Errno.EINVAL : Errno.OK;
    case Command.CACHE:
      return pastEnd ? Errno.EINVAL : Errno.OK;
    case Command.BLOCK_STATUS:
      // One extent at least must be told, so there must be something to tell of.
      return pastEnd || length === 0 || !context.allocation ? Errno.EINVAL : Errno.OK;
    case Command.FLUSH:
      return offset !== 0 || length !== 0 ? Errno.EINVAL : Errno.OK;
    default:
      return Errno.EINVAL;
  }
}
