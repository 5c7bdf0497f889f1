/** Differences between two block statuses. Both must be true; what they may differ in is how closely they look. */
import type { Extent } from './answers.js';
import { PAGE } from './disk.js';
import { canonical, type RequestFacts } from './facts.js';
import { FLAG, HOLE, ZERO } from './wire.js';

export interface ExtentDifference {
  readonly name: string;
  readonly differs: string;
  readonly why: string;
  readonly where: string;
  /** Of a byte where they differ: both states, none behind the end of a list, and whether sealbd stores something of its page. */
  holds(ours: number | undefined, theirs: number | undefined, pageMapped: boolean): boolean;
}

const STATES = 'Metadata querying, base:allocation';

export const EXTENT_DIFFERENCES: readonly ExtentDifference[] = [
  {
    name: 'allocation-pages',
    differs:
      'a block without data beside one with data: a hole for sealbd, part of a page of 32 KiB for nbdkit',
    why: 'status 0 is safe for any block',
    where: STATES,
    holds: (ours, theirs, pageMapped) => ours === (HOLE | ZERO) && theirs === 0 && pageMapped,
  },
  {
    name: 'zeros-looked-for',
    differs:
      'zeros that were written, or left of a page: nbdkit looks and says ZERO, sealbd says what is stored',
    why: 'a server may tell of zeros, and of unknown content where there are zeros',
    where: STATES,
    holds: (ours, theirs, pageMapped) =>
      theirs === ZERO && pageMapped && (ours === 0 || ours === (HOLE | ZERO)),
  },
  {
    name: 'zero-page-freed',
    differs: 'a page that became zeros bit by bit: a hole for nbdkit; a block that was written for sealbd',
    why: 'a server may tell of data even after TRIM or WRITE_ZEROES',
    where: STATES,
    holds: (ours, theirs, pageMapped) => ours === 0 && theirs === (HOLE | ZERO) && pageMapped,
  },
  {
    name: 'one-extent-length',
    differs: 'the one extent of REQ_ONE: ends with the block for sealbd, with the page for nbdkit',
    why: 'an extent may be shorter than what has its state',
    where: 'Structured reply types, BLOCK_STATUS',
    holds: (ours, theirs) => (ours === undefined) !== (theirs === undefined),
  },
];

export interface ExtentsCompared {
  readonly used: string[];
  readonly wrong: string | undefined;
}

/** `told` are nbdkit's, as they came. sealbd's were found right: they are the expected ones. */
export function compareExtents(facts: RequestFacts, told: readonly Extent[]): ExtentsCompared {
  const used = new Set<string>();
  const theirs = canonical(told, facts.length);
  const start = Number(facts.offset);
  const firstPage = Math.floor(start / PAGE);
  let at = start;
  for (const { length, state } of theirs) {
    const from = at - firstPage * PAGE;
    const zeros = facts.theirs.subarray(from, from + length).equals(Buffer.alloc(length));
    if ((state & ZERO) !== 0 && !zeros) return { used: [], wrong: `nbdkit says ZERO of data at ${at}` };
    at += length;
  }
  const ours = facts.expected.extents;
  if ((facts.flags & FLAG.REQ_ONE) === 0 && at !== start + facts.length)
    return { used: [], wrong: `nbdkit tells up to ${at} only` };
  for (const [from, ourState, theirState] of pieces(start, ours, theirs)) {
    if (ourState === theirState) continue;
    const mapped = facts.pagesMapped[Math.floor(from / PAGE) - firstPage] === true;
    const difference = EXTENT_DIFFERENCES.find(({ holds }) => holds(ourState, theirState, mapped));
    if (difference === undefined) return { used: [], wrong: `${ourState}, not ${theirState} at ${from}` };
    used.add(difference.name);
  }
  return { used: [...used], wrong: undefined };
}

/** Ranges of one state each in both, cut at pages, up to the end of the shorter list; then what the longer one says there. */
function* pieces(
  start: number,
  ours: readonly Extent[],
  theirs: readonly Extent[],
): Generator<[from: number, ours: number | undefined, theirs: number | undefined]> {
  const [a, b] = [ends(start, ours), ends(start, theirs)];
  for (let at = start; ; ) {
    const [our, their] = [a.find(({ end }) => end > at), b.find(({ end }) => end > at)];
    if (our === undefined && their === undefined) return;
    yield [at, our?.state, their?.state];
    if (our === undefined || their === undefined) return;
    at = Math.min(our.end, their.end, (Math.floor(at / PAGE) + 1) * PAGE);
  }
}

function ends(start: number, extents: readonly Extent[]): { end: number; state: number }[] {
  let end = start;
  return extents.map(({ length, state }) => {
    end += length;
    return { end, state };
  });
}
