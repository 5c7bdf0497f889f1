/** Wire values of the NBD protocol (doc/proto.md of NetworkBlockDevice/nbd). All integers are big-endian. */

// Magics, as pairs of 32-bit words where they have 64 bits.
export const MAGIC_INIT = [0x4e42444d, 0x41474943] as const; // "NBDMAGIC"
export const MAGIC_OPTION = [0x49484156, 0x454f5054] as const; // "IHAVEOPT"
export const MAGIC_OPTION_REPLY = [0x0003e889, 0x045565a9] as const;
export const MAGIC_REQUEST = 0x25609513;
export const MAGIC_SIMPLE_REPLY = 0x67446698;
export const MAGIC_STRUCTURED_REPLY = 0x668e33ef;

// Handshake flags, the same bits from both sides.
export const HANDSHAKE_FIXED_NEWSTYLE = 1;
export const HANDSHAKE_NO_ZEROES = 2;
export const HANDSHAKE_FLAGS = HANDSHAKE_FIXED_NEWSTYLE | HANDSHAKE_NO_ZEROES;

export const Option = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;

const ERROR_BIT = 0x8000_0000;
export const Rep = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: ERROR_BIT + 1,
  ERR_POLICY: ERROR_BIT + 2,
  ERR_INVALID: ERROR_BIT + 3,
  ERR_PLATFORM: ERROR_BIT + 4,
  ERR_TLS_REQD: ERROR_BIT + 5,
  ERR_UNKNOWN: ERROR_BIT + 6,
  ERR_SHUTDOWN: ERROR_BIT + 7,
  ERR_BLOCK_SIZE_REQD: ERROR_BIT + 8,
  ERR_TOO_BIG: ERROR_BIT + 9,
  ERR_EXT_HEADER_REQD: ERROR_BIT + 10,
} as const;

export const Info = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

/** Transmission flags. */
export const Feature = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  FLUSH: 1 << 2,
  FUA: 1 << 3,
  ROTATIONAL: 1 << 4,
  TRIM: 1 << 5,
  WRITE_ZEROES: 1 << 6,
  DF: 1 << 7,
  MULTI_CONN: 1 << 8,
  CACHE: 1 << 10,
  FAST_ZERO: 1 << 11,
} as const;

export const Command = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

export const CommandFlag = {
  FUA: 1 << 0,
  NO_HOLE: 1 << 1,
  DF: 1 << 2,
  REQ_ONE: 1 << 3,
  FAST_ZERO: 1 << 4,
} as const;

export const CHUNK_FLAG_DONE = 1;
export const Chunk = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;

/** States of the `base:allocation` context. */
export const STATE_HOLE = 1;
export const STATE_ZERO = 2;
export const CONTEXT_ALLOCATION = 'base:allocation';

export const Errno = {
  OK: 0,
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;
export type Errno = (typeof Errno)[keyof typeof Errno];

// Sizes in bytes.
export const GREETING_BYTES = 18;
export const CLIENT_FLAGS_BYTES = 4;
export const OPTION_HEADER_BYTES = 16;
export const OPTION_REPLY_HEADER_BYTES = 20;
export const EXPORT_NAME_REPLY_BYTES = 10;
export const EXPORT_NAME_PADDING_BYTES = 124;
export const REQUEST_HEADER_BYTES = 28;
export const SIMPLE_REPLY_BYTES = 16;
export const CHUNK_HEADER_BYTES = 20;
/** A chunk header and the offset that begins its payload. */
export const DATA_CHUNK_HEADER_BYTES = CHUNK_HEADER_BYTES + 8;
export const HOLE_CHUNK_BYTES = CHUNK_HEADER_BYTES + 12;
export const EXTENT_BYTES = 8;
