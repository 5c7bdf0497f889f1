/**
 * Finds the values of one field in JSON text, as bytes: so that a secret can be taken out of a buffer before
 * anything makes a string of it.
 */
import { SealbdError } from '../base/errors.js';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const SPACE = 0x20;

export interface TextRange {
  readonly start: number;
  readonly length: number;
}

/**
 * Where the strings that are values of a field of that name start, without their quotes, at any depth and in the order
 * of the text; values that are no strings are left out. Names are compared as they are written: one spelled with escapes
 * is not found. INTEGRITY where a string does not end.
 */
export function secretFields(text: Buffer, name: string): TextRange[] {
  const wanted = Buffer.from(name);
  const found: TextRange[] = [];
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] !== QUOTE) continue;
    let end = stringEnd(text, at);
    const value = valueAfter(text, at, end, wanted);
    if (value !== undefined && text[value] === QUOTE) {
      end = stringEnd(text, value);
      found.push({ start: value + 1, length: end - value - 1 });
    }
    at = end;
  }
  return found;
}

function stringEnd(text: Buffer, open: number): number {
  for (let at = open + 1; at < text.length; at += 1) {
    if (text[at] === BACKSLASH) at += 1;
    else if (text[at] === QUOTE) return at;
  }
  throw new SealbdError('INTEGRITY', 'not valid JSON');
}

/** Where the value starts, if the string from `open` to `end` names that field. */
function valueAfter(text: Buffer, open: number, end: number, name: Buffer): number | undefined {
  // Compared as bytes: this string may be a secret.
  if (text.compare(name, 0, name.length, open + 1, end) !== 0) return undefined;
  const colon = afterSpaces(text, end + 1);
  return text[colon] === COLON ? afterSpaces(text, colon + 1) : undefined;
}

function afterSpaces(text: Buffer, from: number): number {
  let at = from;
  while (at < text.length && text[at] <= SPACE) at += 1;
  return at;
}
