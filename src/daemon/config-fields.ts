/** Sizes and times as values of the configuration. */
import { z } from 'zod';
import { isSealbdError } from '../base/errors.js';
import { formatDuration, formatSize, parseDuration, parseSize } from '../base/units.js';

/** Text that `parse` takes, with its USAGE message as the issue. */
function parsed(parse: (text: string) => number) {
  return z.string().transform((text, context) => {
    try {
      return parse(text);
    } catch (error) {
      if (!isSealbdError(error, 'USAGE')) throw error;
      context.addIssue({ code: 'custom', message: error.message.replace(/^.*? is not /, 'expected ') });
      return z.NEVER;
    }
  });
}

/** Bytes. */
export const size = parsed((text) => parseSize(text, 'size'));
/** Milliseconds. */
export const duration = parsed((text) => parseDuration(text, 'time'));

export function sizeWithin(minBytes: number, maxBytes: number) {
  const expected = `expected a size from ${formatSize(minBytes)} to ${formatSize(maxBytes)}`;
  return size.refine((bytes) => bytes >= minBytes && bytes <= maxBytes, expected);
}

export function durationWithin(minMs: number, maxMs: number) {
  return duration.refine((ms) => ms >= minMs && ms <= maxMs, expectDuration(minMs, maxMs));
}

export function expectDuration(minMs: number, maxMs: number): string {
  return `expected a time from ${formatDuration(minMs)} to ${formatDuration(maxMs)}`;
}
