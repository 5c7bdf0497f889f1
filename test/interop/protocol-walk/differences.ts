/**
 * Where sealbd and nbdkit may answer differently: each difference with the reason, and the place in doc/proto.md that leaves
 * it open. An entry turns what nbdkit answered into what sealbd must answer then, so nothing else passes under its name.
 * docs/NBD.md has the same rows.
 */
import type { Answer } from './answers.js';
import { errorOf, type Fault, isChange, type OptionFacts, type RequestFacts } from './facts.js';
import type { OptionAnswer } from './run.js';
import { CMD, ERRNO, FLAG, OPT } from './wire.js';

export interface Difference<Facts, Result> {
  readonly name: string;
  /** What each of them does. */
  readonly differs: string;
  readonly why: string;
  /** Section of doc/proto.md. */
  readonly where: string;
  /** nbdkit's answer as sealbd gives it; undefined where this is another matter. */
  adjust(facts: Facts, theirs: Result, ours: Result): Result | undefined;
}

const META: readonly number[] = [OPT.LIST_META_CONTEXT, OPT.SET_META_CONTEXT];
const LOOKS: readonly number[] = [OPT.INFO, OPT.GO];
const OPTION_BYTES = 65_536;
const QUERIES = 64;

const refused = (answer: OptionAnswer) => answer.length === 1 && answer[0] !== 'ACK';
const acknowledged = (answer: OptionAnswer) => answer.at(-1) === 'ACK';
/** Repeated lines once. */
const once = (answer: OptionAnswer) => [...new Set(answer)];

/** In the order in which sealbd judges an option. */
export const OPTION_DIFFERENCES: readonly Difference<OptionFacts, OptionAnswer>[] = [
  {
    name: 'not-fixed-newstyle',
    differs: 'a client without C_FIXED_NEWSTYLE sends options: sealbd answers them, nbdkit says INVALID',
    why: 'a server may honour them; the answers are the same as with the flag',
    where: 'Client flags',
    adjust: ({ fixed, option, listing }, theirs) => {
      if (fixed || option === OPT.EXPORT_NAME || theirs.join() !== 'INVALID') return undefined;
      if (option === OPT.LIST) return [...listing, 'ACK'];
      if (option === OPT.STARTTLS) return ['POLICY'];
      return option === OPT.ABORT ? ['ACK'] : ['UNSUP'];
    },
  },
  {
    name: 'long-option',
    differs:
      'an option of more than 64 KiB: sealbd reads it over and says TOO_BIG, nbdkit looks at up to 64 MiB',
    why: 'nothing that means something is so long, and each connection costs little memory before it has an export',
    where: 'Option reply types, TOO_BIG',
    adjust: ({ dataBytes }, theirs) =>
      dataBytes > OPTION_BYTES && refused(theirs) ? ['TOO_BIG'] : undefined,
  },
  {
    name: 'list-again',
    differs: 'a second LIST: sealbd lists again (up to eight times), nbdkit says INVALID',
    why: 'a server may refuse what is repeated, and need not',
    where: 'Fixed newstyle negotiation',
    adjust: ({ option, listsBefore, listing }, theirs) =>
      option === OPT.LIST && listsBefore > 0 && theirs.join() === 'INVALID' ? [...listing, 'ACK'] : undefined,
  },
  {
    name: 'default-listed',
    differs: 'LIST has the empty name from nbdkit, beside the name that it stands for; not from sealbd',
    why: 'with exportname-strict nbdkit lets nobody enter by a name that it does not list; an export is one entry',
    where: 'Option types, LIST',
    adjust: ({ option }, theirs) =>
      option === OPT.LIST ? theirs.filter((line) => !line.startsWith('SERVER : ')) : undefined,
  },
  {
    name: 'list-context-unstructured',
    differs: 'LIST_META_CONTEXT before STRUCTURED_REPLY: INVALID from sealbd, an answer from nbdkit',
    why: 'it should not be asked then, and a server may refuse it',
    where: 'Option types, LIST_META_CONTEXT',
    adjust: ({ option, structured }, theirs) =>
      option === OPT.LIST_META_CONTEXT && !structured && acknowledged(theirs) ? ['INVALID'] : undefined,
  },
  {
    name: 'contexts-before-error',
    differs:
      'a list of queries that turns out malformed: nbdkit has answered those before by then, sealbd looks at all first',
    why: 'a client must disregard contexts that an error follows',
    where: 'Option types, LIST_META_CONTEXT',
    adjust: ({ option }, theirs) =>
      META.includes(option) && theirs.length > 1 && theirs.at(-1) === 'INVALID' ? ['INVALID'] : undefined,
  },
  {
    name: 'bytes-behind-queries',
    differs: 'bytes behind the last query: INVALID from sealbd, ignored by nbdkit',
    why: 'lengths that do not add up are malformed, and must be refused',
    where: 'Option types, LIST_META_CONTEXT',
    adjust: ({ option, trailing }, theirs) =>
      META.includes(option) && trailing && acknowledged(theirs) ? ['INVALID'] : undefined,
  },
  {
    name: 'name-not-utf8',
    differs: 'a name that is not UTF-8: INVALID from sealbd, a name like another for nbdkit',
    why: 'strings are UTF-8; what is something else is malformed',
    where: 'Conventions',
    adjust: ({ option, name }, theirs) => {
      if (name !== 'not UTF-8') return undefined;
      if (LOOKS.includes(option)) return theirs.join() === 'UNKNOWN' ? ['INVALID'] : undefined;
      return META.includes(option) && acknowledged(theirs) ? ['INVALID'] : undefined;
    },
  },
  {
    name: 'many-queries',
    differs: 'more than 64 queries: TOO_BIG from sealbd, an answer from nbdkit',
    why: 'a server may refuse too many',
    where: 'Option types, LIST_META_CONTEXT and SET_META_CONTEXT',
    adjust: ({ option, queries }, theirs) =>
      META.includes(option) && queries.length > QUERIES && acknowledged(theirs) ? ['TOO_BIG'] : undefined,
  },
  {
    name: 'context-of-unknown-export',
    differs:
      'contexts of an export that does not exist: UNKNOWN from sealbd; nbdkit looks for the export only in INFO and GO',
    why: 'contexts are those that can be selected on the given export',
    where: 'Option types, LIST_META_CONTEXT; Option reply types, UNKNOWN',
    adjust: ({ option, name }, theirs) =>
      META.includes(option) && name === 'unknown' && acknowledged(theirs) ? ['UNKNOWN'] : undefined,
  },
  {
    name: 'query-without-namespace',
    differs: 'a query without a namespace and a colon: INVALID from sealbd, ignored by nbdkit',
    why: 'a server may refuse what makes no sense',
    where: 'Option types, LIST_META_CONTEXT',
    adjust: ({ option, queries }, theirs) =>
      META.includes(option) && acknowledged(theirs) && queries.some((query) => query.indexOf(':') < 1)
        ? ['INVALID']
        : undefined,
  },
  {
    name: 'context-twice',
    differs: 'a context that several queries match: told once by sealbd, once for each query by nbdkit',
    why: 'the answer is the contexts that match one or more queries, in a SET each with an id of its own',
    where: 'Option types, LIST_META_CONTEXT and SET_META_CONTEXT',
    adjust: ({ option }, theirs) =>
      META.includes(option) && acknowledged(theirs) ? once(theirs) : undefined,
  },
  {
    name: 'information-twice',
    differs: 'information that is asked for twice: given once by sealbd, twice by nbdkit',
    why: 'a client must not ask so, and a type should appear once',
    where: 'Option types, INFO and GO; Option reply types, INFO',
    adjust: ({ option }, theirs) =>
      LOOKS.includes(option) && acknowledged(theirs) ? once(theirs) : undefined,
  },
  {
    name: 'fua-flag-read-only',
    differs: 'a read-only export: sealbd advertises FUA, nbdkit does not',
    why: 'with the flag every command may carry FUA, which has nothing to do where nothing is written',
    where: 'Transmission flags; Command flags, FUA',
    adjust: ({ readOnly }, theirs) =>
      readOnly ? theirs.map((line) => line.replace('READ_ONLY FLUSH', 'READ_ONLY FLUSH FUA')) : undefined,
  },
];

const answersTo = (error: number): Answer => ({ error, data: Buffer.alloc(0), extents: [] });
const EINVAL = answersTo(ERRNO.EINVAL);

export const REQUEST_DIFFERENCES: readonly Difference<RequestFacts, Answer | undefined>[] = [
  {
    name: 'huge-payload',
    differs:
      'a WRITE with more payload than is read over: EINVAL from sealbd before it closes, nbdkit closes at once',
    why: 'a server may close then; the error tells a client that listens why',
    where: 'Size constraints',
    adjust: ({ type, length }, theirs) =>
      type === CMD.WRITE && length > 2 ** 27 && theirs === undefined ? EINVAL : undefined,
  },
  {
    name: 'several-faults',
    differs:
      'a request with more than one thing wrong, or with one wrong and no bytes: each names another error of them',
    why: 'which comes first is not said; sealbd looks at flags, then at permission, length and range',
    where: 'Error values',
    adjust: (facts, theirs, ours) => {
      if (theirs === undefined || ours === undefined || facts.faults.length === 0) return undefined;
      const our = facts.faults.map((fault) => errorOf(fault, facts.type));
      const their = theirFaults(facts).map((fault) => errorOf(fault, facts.type));
      return our.includes(ours.error) && their.includes(theirs.error) && theirs.error !== ours.error
        ? ours
        : undefined;
    },
  },
  {
    name: 'no-bytes',
    differs: 'a request of no bytes: done by sealbd; past the end for nbdkit',
    why: 'what happens is not specified',
    where: 'Request types, READ, TRIM, WRITE_ZEROES',
    adjust: (facts, theirs) =>
      facts.length === 0 &&
      facts.type !== CMD.FLUSH &&
      facts.faults.length === 0 &&
      theirs?.error === errorOf('past the end', facts.type)
        ? facts.expected
        : undefined,
  },
  {
    name: 'fua-read-only',
    differs: 'FUA on a read-only export: accepted by sealbd, EINVAL from nbdkit',
    why: 'each as it advertised the flag: once it did, a server must accept it on all commands',
    where: 'Command flags, FUA',
    adjust: (facts, theirs) =>
      facts.export.readOnly &&
      (facts.flags & FLAG.FUA) !== 0 &&
      facts.faults.length === 0 &&
      theirs?.error === ERRNO.EINVAL
        ? facts.expected
        : undefined,
  },
  {
    name: 'context-after-failed-set',
    differs:
      'BLOCK_STATUS after a SET_META_CONTEXT that was refused: EINVAL from sealbd; for nbdkit the selection before may stand',
    why: 'a SET replaces what was selected, also when it fails',
    where: 'Option types, SET_META_CONTEXT',
    adjust: ({ type, export: { ourContext, theirContext } }, theirs) =>
      type === CMD.BLOCK_STATUS && !ourContext && theirContext && theirs?.error === 0 ? EINVAL : undefined,
  },
  {
    name: 'context-after-information',
    differs:
      'BLOCK_STATUS after INFO (or a refused GO) of another export: answered by sealbd; nbdkit has forgotten the selection',
    why: 'what counts is the last SET and the export that is entered',
    where: 'Option types, SET_META_CONTEXT',
    adjust: (facts, theirs) => contextLost(facts, theirs, 'by INFO'),
  },
  {
    name: 'context-by-other-name',
    differs:
      'a context selected by the empty name, the export entered by its own, or the other way round: one export for sealbd, two for nbdkit',
    why: 'the document speaks of the same name; sealbd goes by what the name means',
    where: 'Request types, BLOCK_STATUS',
    adjust: (facts, theirs) => contextLost(facts, theirs, 'by name'),
  },
  {
    name: 'trim-rounded',
    differs: 'bytes in blocks of which a TRIM covers a part: kept by sealbd, zeros from nbdkit',
    why: 'a server may round inward; a client may assume nothing about what was trimmed',
    where: 'Request types, TRIM',
    adjust: (facts, theirs) =>
      facts.type === CMD.READ &&
      facts.faults.length === 0 &&
      theirs?.error === 0 &&
      theirs.data.equals(facts.theirs)
        ? facts.expected
        : undefined,
  },
];

function contextLost(
  { type, faults, expected, export: { contextLost: lost } }: RequestFacts,
  theirs: Answer | undefined,
  how: 'by INFO' | 'by name',
): Answer | undefined {
  return type === CMD.BLOCK_STATUS && faults.length === 0 && lost === how && theirs?.error === ERRNO.EINVAL
    ? expected
    : undefined;
}

/** nbdkit finds no range in no bytes, and FUA wrong where it did not advertise it. */
function theirFaults({ type, flags, length, faults, export: { readOnly } }: RequestFacts): Fault[] {
  const more: Fault[] = [...faults];
  if (length === 0 && type !== CMD.FLUSH) more.push('past the end');
  if (readOnly && (flags & FLAG.FUA) !== 0 && !isChange(type)) more.push('flags');
  return more;
}
