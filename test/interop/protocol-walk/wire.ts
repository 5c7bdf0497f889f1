/**
 * The protocol as the walks speak it: numbers and bytes out of doc/proto.md, and nothing of the product's codec, so that a
 * mistake there can't hide here.
 */
export const NBDMAGIC = 0x4e42444d41474943n;
export const IHAVEOPT = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_MAGIC = 0x67446698;
export const CHUNK_MAGIC = 0x668e33ef;

export const OPT = {
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

export const CMD = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

export const FLAG = { FUA: 1, NO_HOLE: 2, DF: 4, REQ_ONE: 8, FAST_ZERO: 16 } as const;

export const ERRNO = { EPERM: 1, EIO: 5, ENOMEM: 12, EINVAL: 22, ENOSPC: 28 } as const;
/** Every error that the document knows. */
export const ERRORS: ReadonlySet<number> = new Set([0, 1, 5, 12, 22, 28, 75, 95, 108]);

export const HOLE = 1;
export const ZERO = 2;
export const ALLOCATION = 'base:allocation';
/** Of strings, in bytes. */
export const STRING_MAX = 4096;
/** Payload that every server takes, unless it said something else. */
export const PAYLOAD_MAX = 2 ** 25;

const OPTION_ERRORS = [
  'UNSUP',
  'POLICY',
  'INVALID',
  'PLATFORM',
  'TLS_REQD',
  'UNKNOWN',
  'SHUTDOWN',
  'BLOCK_SIZE_REQD',
  'TOO_BIG',
  'EXT_HEADER_REQD',
];

const TRANSMISSION_FLAGS = [
  'HAS_FLAGS',
  'READ_ONLY',
  'FLUSH',
  'FUA',
  'ROTATIONAL',
  'TRIM',
  'WRITE_ZEROES',
  'DF',
  'MULTI_CONN',
  'RESIZE',
  'CACHE',
  'FAST_ZERO',
];

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function u64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(value);
  return bytes;
}

export function option(type: number, data: Uint8Array): Buffer {
  return Buffer.concat([u64(IHAVEOPT), u32(type), u32(data.length), data]);
}

/** Data of INFO and GO. */
export function infoData(name: Uint8Array, infos: readonly number[]): Buffer {
  return Buffer.concat([u32(name.length), name, u16(infos.length), ...infos.map(u16)]);
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export function metaData(name: Uint8Array, queries: readonly string[]): Buffer {
  const texts = queries.map((query) => Buffer.from(query));
  return Buffer.concat([
    u32(name.length),
    name,
    u32(queries.length),
    ...texts.flatMap((text) => [u32(text.length), text]),
  ]);
}

export interface RequestHeader {
  readonly flags: number;
  readonly type: number;
  readonly cookie: bigint;
  readonly offset: bigint;
  readonly length: number;
}

export function requestHeader({ flags, type, cookie, offset, length }: RequestHeader): Buffer {
  return Buffer.concat([u32(REQUEST_MAGIC), u16(flags), u16(type), u64(cookie), u64(offset), u32(length)]);
}

/** What the answer to EXPORT_NAME, and the information EXPORT, say. */
export function exportText(sizeAndFlags: Buffer): string {
  const flags = sizeAndFlags.readUInt16BE(8);
  const names = Array.from({ length: 16 }, (_, bit) =>
    flags & (1 << bit) ? (TRANSMISSION_FLAGS[bit] ?? `bit ${bit}`) : '',
  );
  return `EXPORT ${sizeAndFlags.readBigUInt64BE()} ${names.filter((name) => name !== '').join(' ')}`;
}

function text(bytes: Buffer): string {
  if (bytes.length > STRING_MAX) throw new Error(`a string of ${bytes.length} bytes`);
  return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
}

function infoText(data: Buffer): string {
  const rest = data.subarray(2);
  switch (data.readUInt16BE()) {
    case 0:
      if (data.length !== 12) throw new Error(`information EXPORT of ${data.length} bytes`);
      return exportText(rest);
    case 1:
      return `NAME ${text(rest)}`;
    case 2:
      return `DESCRIPTION ${text(rest)}`;
    case 3:
      if (data.length !== 14) throw new Error(`information BLOCK_SIZE of ${data.length} bytes`);
      return `BLOCK_SIZE ${[0, 4, 8].map((at) => rest.readUInt32BE(at)).join(' ')}`;
    default:
      throw new Error(`information ${data.readUInt16BE()}, which nobody asked for`);
  }
}

/** One reply to an option: what it says, without the wording of errors. `id` where a context came. */
export function optionReplyText(type: number, data: Buffer): { text: string; final: boolean; id?: number } {
  if (type >= 2 ** 31) {
    text(data);
    const name = OPTION_ERRORS[type - 2 ** 31 - 1];
    if (name === undefined) throw new Error(`option reply ${type}`);
    return { text: name, final: true };
  }
  switch (type) {
    case 1:
      if (data.length !== 0) throw new Error('ACK with data');
      return { text: 'ACK', final: true };
    case 2: {
      const end = 4 + data.readUInt32BE();
      return { text: `SERVER ${text(data.subarray(4, end))}: ${text(data.subarray(end))}`, final: false };
    }
    case 3:
      return { text: infoText(data), final: false };
    case 4:
      return { text: `CONTEXT ${text(data.subarray(4))}`, final: false, id: data.readUInt32BE() };
    default:
      throw new Error(`option reply ${type}`);
  }
}
