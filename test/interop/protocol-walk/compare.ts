/** Two transcripts of one walk: each answer of sealbd is right, and nbdkit's is the same, or differs as the tables say. */
import type { Answer } from './answers.js';
import { type Difference, OPTION_DIFFERENCES, REQUEST_DIFFERENCES } from './differences.js';
import { compareExtents } from './extent-differences.js';
import { errorOf, type OptionFacts, type RequestFacts } from './facts.js';
import type { OptionAnswer, Transcript } from './run.js';
import type { Walk } from './walk.js';
import { CMD, PAYLOAD_MAX } from './wire.js';

/** Names of the differences that were met; throws at the first that no table has. */
export function compare(walk: Walk, ours: Transcript, theirs: Transcript): Set<string> {
  const used = new Set<string>();
  if (ours.broken !== undefined) throw new Error(`sealbd: ${ours.broken}`);
  if (theirs.broken !== undefined) throw new Error(`nbdkit: ${theirs.broken}`);
  if (ours.greeting !== theirs.greeting)
    throw new Error(`greeted with ${ours.greeting}, not ${theirs.greeting}`);
  for (const [i, facts] of walk.steps.flatMap(({ options }) => options).entries())
    compareOption(facts, ours.options[i]!, theirs.options[i]!, used);
  for (const [i, facts] of walk.steps.flatMap(({ requests }) => requests).entries())
    compareRequest(facts, ours.answers[i], theirs.answers[i], used);
  return used;
}

function adjusted<Facts, Result>(
  table: readonly Difference<Facts, Result>[],
  facts: Facts,
  theirs: Result,
  ours: Result,
  same: (a: Result, b: Result) => boolean,
): { result: Result; names: string[] } {
  let result = theirs;
  const names: string[] = [];
  for (const { name, adjust } of table) {
    const next = adjust(facts, result, ours);
    if (next === undefined || same(next, result)) continue;
    result = next;
    names.push(name);
  }
  return { result, names };
}

const sameOption = (a: OptionAnswer, b: OptionAnswer) => a.join('\n') === b.join('\n');

function compareOption(
  facts: OptionFacts,
  ours: OptionAnswer,
  theirs: OptionAnswer,
  used: Set<string>,
): void {
  const { result, names } = adjusted(OPTION_DIFFERENCES, facts, theirs, ours, sameOption);
  if (!sameOption(ours, result)) {
    const said = [ours, theirs, result].map((answer) => `[${answer.join(', ')}]`);
    throw new Error(`${told(facts)}\nsealbd: ${said[0]}\nnbdkit: ${said[1]}\nwhich allows: ${said[2]}`);
  }
  for (const name of names) used.add(name);
}

function sameRequest(a: Answer | undefined, b: Answer | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.error === b.error && a.data.equals(b.data) && sameExtents(a, b);
}

function sameExtents(a: Answer, b: Answer): boolean {
  return JSON.stringify(a.extents) === JSON.stringify(b.extents);
}

function compareRequest(
  facts: RequestFacts,
  ours: Answer | undefined,
  theirs: Answer | undefined,
  used: Set<string>,
): void {
  const fail = (what: string) => {
    throw new Error(`${told(facts)}\nsealbd: ${brief(ours)}\nnbdkit: ${brief(theirs)}\n${what}`);
  };
  if (!isRight(facts, ours)) fail(`which allows for sealbd: ${brief(facts.expected)}`);
  const { result, names } = adjusted(REQUEST_DIFFERENCES, facts, theirs, ours, sameRequest);
  for (const name of names) used.add(name);
  if (facts.type === CMD.BLOCK_STATUS && facts.faults.length === 0 && result?.error === 0) {
    if (names.length > 0) return;
    const extents = compareExtents(facts, result.extents);
    if (extents.wrong !== undefined) fail(extents.wrong);
    for (const name of extents.used) used.add(name);
    return;
  }
  if (!sameRequest(ours, result)) fail(`which allows for nbdkit: ${brief(result)}`);
}

/** As the model has it: by bytes and extents, or by an error for one of its faults. */
function isRight({ type, length, faults, expected }: RequestFacts, ours: Answer | undefined): boolean {
  if (ours === undefined) return false;
  if (faults.length === 0) return sameRequest(ours, expected);
  if (type === CMD.WRITE && length > PAYLOAD_MAX) return ours.error === errorOf('payload', type);
  return faults.some((fault) => errorOf(fault, type) === ours.error);
}

function told(facts: OptionFacts | RequestFacts): string {
  return JSON.stringify(facts, (key, value: unknown) => {
    if (['expected', 'theirs', 'pagesMapped', 'listing'].includes(key)) return undefined;
    if (key === 'queries') return (value as string[]).map((query) => query.slice(0, 30));
    return typeof value === 'bigint' ? String(value) : value;
  });
}

function brief(answer: Answer | undefined): string {
  if (answer === undefined) return 'closed';
  const { error, data, extents } = answer;
  return JSON.stringify({ error, bytes: data.length, begin: data.subarray(0, 16).toString('hex'), extents });
}
