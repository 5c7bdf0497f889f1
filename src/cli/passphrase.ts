/** A passphrase from a file, from SEALBD_PASSPHRASE, or typed without echo. */
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { SealbdError } from '../base/errors.js';
import { readInput } from './files.js';

export async function obtainPassphrase(file: string | undefined, confirm: boolean): Promise<string> {
  // The last line end of a file is not part of the passphrase.
  if (file !== undefined) return notEmpty((await readInput(file)).toString('utf8').replace(/\r?\n$/, ''));
  const fromEnvironment = process.env.SEALBD_PASSPHRASE;
  if (fromEnvironment !== undefined) return notEmpty(fromEnvironment);
  if (!process.stdin.isTTY) {
    throw new SealbdError(
      'USAGE',
      'no passphrase: set SEALBD_PASSPHRASE, give --passphrase-file, or run in a terminal',
    );
  }
  const first = notEmpty(await ask('Passphrase: '));
  if (confirm && (await ask('Again: ')) !== first)
    throw new SealbdError('USAGE', 'the two passphrases differ');
  return first;
}

/** Readline edits the line; what it would echo goes nowhere. */
async function ask(prompt: string): Promise<string> {
  process.stderr.write(prompt);
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const lines = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  const interrupted = new Promise<never>((_resolve, reject) => {
    lines.once('SIGINT', () => reject(new SealbdError('FAILED', 'interrupted')));
    lines.once('close', () => reject(new SealbdError('FAILED', 'no passphrase')));
  });
  try {
    return await Promise.race([lines.question(''), interrupted]);
  } finally {
    lines.close();
    process.stderr.write('\n');
  }
}

function notEmpty(passphrase: string): string {
  if (passphrase === '') throw new SealbdError('USAGE', 'the passphrase is empty');
  return passphrase;
}
