/**
 * Finds the values of one field in JSON text, as bytes: so that a secret can be taken out of a buffer before
 * anything makes a string of it.
 */
import { SealbdError } from '../base/errors.js';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;

export interface TextRange {
  readonly start: number;
  readonly length: number;
}

/**
 * Where the strings that follow a field of that name start, without their quotes, at any depth and in the order of the
 * text. Names are compared as they are written: one spelled with escapes is not found. INTEGRITY where a string does
 * not end.
 */
export function secretFields(text: Buffer, name: string): TextRange[] {
  const wanted = Buffer.from(name);
  const found: TextRange[] = [];
  let fieldIsWanted = false;
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] !== QUOTE) continue;
    const end = stringEnd(text, at);
    if (fieldIsWanted) found.push({ start: at + 1, length: end - at - 1 });
    // Compared as bytes: this string may be a secret.
    fieldIsWanted = !fieldIsWanted && isFieldNamed(text, at, end, wanted);
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

function isFieldNamed(text: Buffer, open: number, end: number, name: Buffer): boolean {
  if (text.compare(name, 0, name.length, open + 1, end) !== 0) return false;
  let at = end + 1;
  while (at < text.length && text[at] <= 0x20) at += 1;
  return text[at] === COLON;
}
