/** Certificates and keys under the names that GnuTLS clients and servers agree on. */

import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, SealbdError } from '../../base/errors.js';
import { readInput, writeOutput } from '../files.js';
import type { PemPair } from './authority.js';

export const CA_FILES = { cert: 'ca-cert.pem', key: 'ca-key.pem' } as const;
export const SERVER_FILES = { cert: 'server-cert.pem', key: 'server-key.pem' } as const;
export const CLIENT_FILES = { cert: 'client-cert.pem', key: 'client-key.pem' } as const;

type PairFiles = typeof CA_FILES | typeof SERVER_FILES | typeof CLIENT_FILES;

const DAYS_MAX = 36_500;

export async function loadPair(directory: string, files: PairFiles): Promise<PemPair> {
  const [cert, key] = await Promise.all(
    [files.cert, files.key].map((file) => readInput(join(directory, file))),
  );
  return { cert: cert.toString('utf8'), key: key.toString('utf8') };
}

/** The key first: a certificate that is there has its key beside it. */
export async function writePair(directory: string, files: PairFiles, { cert, key }: PemPair): Promise<void> {
  await writeOutput(join(directory, files.key), key);
  await writeOutput(join(directory, files.cert), cert);
}

export async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}

export function parseDays(text: string): number {
  const days = Number(text);
  if (Number.isInteger(days) && days >= 1 && days <= DAYS_MAX) return days;
  throw new SealbdError('USAGE', `--days: "${text}" is not a whole number from 1 to ${DAYS_MAX}`);
}
