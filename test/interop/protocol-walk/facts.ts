/** What is known of an option or a request before it is answered: all that a difference may be judged by. */
import type { Answer, Extent } from './answers.js';
import { CMD, ERRNO, FLAG, PAYLOAD_MAX, type RequestHeader } from './wire.js';

/** 'other' is one that exists, but is not what the walk enters. */
export type NameKind = 'good' | 'other' | 'unknown' | 'not UTF-8' | 'malformed';

export interface OptionFacts {
  readonly option: number;
  readonly dataBytes: number;
  /** The client said that it speaks fixed newstyle. */
  readonly fixed: boolean;
  /** Of the export that it names. */
  readonly name: NameKind;
  readonly readOnly: boolean;
  readonly structured: boolean;
  readonly listsBefore: number;
  readonly queries: readonly string[];
  /** Bytes behind the last query that a meta context's option says it has. */
  readonly trailing: boolean;
  /** What LIST is answered with. */
  readonly listing: readonly string[];
}

export type Fault =
  | 'flags'
  | 'command'
  | 'read-only'
  | 'past the end'
  | 'payload'
  | 'range of a flush'
  | 'no context'
  | 'status of nothing';

export interface ExportFacts {
  readonly size: number;
  readonly readOnly: boolean;
  readonly structured: boolean;
  /** `base:allocation` is selected, as each server sees it. */
  readonly ourContext: boolean;
  readonly theirContext: boolean;
  /** How nbdkit lost it, where only sealbd has it. */
  readonly contextLost: 'by INFO' | 'by name' | undefined;
}

export interface RequestFacts extends RequestHeader {
  readonly export: ExportFacts;
  /** What is wrong with it, as sealbd sees it. */
  readonly faults: readonly Fault[];
  /** What sealbd must answer where there is no fault. */
  readonly expected: Answer;
  /** The bytes of nbdkit's memory in the range of a READ, and in the pages around that of a BLOCK_STATUS. */
  readonly theirs: Buffer;
  /** Of each of these pages: sealbd stores a block of it. */
  readonly pagesMapped: readonly boolean[];
}

const ALLOWED: Readonly<Record<number, number>> = {
  [CMD.READ]: FLAG.FUA | FLAG.DF,
  [CMD.WRITE]: FLAG.FUA,
  [CMD.FLUSH]: FLAG.FUA,
  [CMD.TRIM]: FLAG.FUA,
  [CMD.CACHE]: FLAG.FUA,
  [CMD.WRITE_ZEROES]: FLAG.FUA | FLAG.NO_HOLE | FLAG.FAST_ZERO,
  [CMD.BLOCK_STATUS]: FLAG.FUA | FLAG.REQ_ONE,
};
const CHANGES: readonly number[] = [CMD.WRITE, CMD.TRIM, CMD.WRITE_ZEROES];

export function isChange(type: number): boolean {
  return CHANGES.includes(type);
}

/** What doc/proto.md lets a server refuse `request` for. */
export function faultsOf(request: RequestHeader, given: ExportFacts): Fault[] {
  const { type, flags, offset, length } = request;
  const faults: Fault[] = [];
  const allowed = ALLOWED[type];
  if (allowed === undefined) return flags === 0 ? ['command'] : ['command', 'flags'];
  if ((flags & ~allowed) !== 0 || ((flags & FLAG.DF) !== 0 && !given.structured)) faults.push('flags');
  if (given.readOnly && isChange(type)) faults.push('read-only');
  if (type === CMD.FLUSH) {
    if (offset !== 0n || length !== 0) faults.push('range of a flush');
    return faults;
  }
  if (offset + BigInt(length) > BigInt(given.size)) faults.push('past the end');
  if ((type === CMD.READ || type === CMD.WRITE) && length > PAYLOAD_MAX) faults.push('payload');
  if (type === CMD.BLOCK_STATUS && !given.ourContext) faults.push('no context');
  if (type === CMD.BLOCK_STATUS && length === 0) faults.push('status of nothing');
  return faults;
}

/** The error that names the fault. */
export function errorOf(fault: Fault, type: number): number {
  if (fault === 'read-only') return ERRNO.EPERM;
  if (fault === 'past the end' && (type === CMD.WRITE || type === CMD.WRITE_ZEROES)) return ERRNO.ENOSPC;
  return ERRNO.EINVAL;
}

export const SUCCESS: Answer = { error: 0, data: Buffer.alloc(0), extents: [] };

/** Clipped to the request, neighbours of one state joined. */
export function canonical(extents: readonly Extent[], length: number): Extent[] {
  const joined: { length: number; state: number }[] = [];
  let left = length;
  for (const extent of extents) {
    const part = Math.min(extent.length, left);
    if (part === 0) break;
    const last = joined.at(-1);
    if (last?.state === extent.state) last.length += part;
    else joined.push({ length: part, state: extent.state });
    left -= part;
  }
  return joined;
}
