#!/usr/bin/env -S node --max-semi-space-size=2
import { CommanderError } from 'commander';
import { isSealbdError, messageOf } from '../base/errors.js';
import { EXIT, exitCodeOf } from './exit-codes.js';
import { note, tolerateClosedPipes } from './output.js';
import { buildProgram } from './program.js';

tolerateClosedPipes();
try {
  await buildProgram().parseAsync();
} catch (error) {
  process.exitCode = report(error);
}

function report(error: unknown): number {
  // Commander has printed its message already; help that was asked for is no error.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
  note(`sealbd: ${messageOf(error)}`);
  if (!isSealbdError(error) && error instanceof Error && process.env.SEALBD_DEBUG) note(error.stack ?? '');
  return exitCodeOf(error);
}
