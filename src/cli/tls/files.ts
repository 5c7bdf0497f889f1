/** Certificates and keys under the names that GnuTLS clients and servers agree on. */
import { access, link, lstat, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, SealbdError } from '../../base/errors.js';
import { syncDirectory } from '../../base/sync-directory.js';
import { readInput, refuseExisting, writeOutput } from '../files.js';
import type { PemPair } from './authority.js';

export const CA_FILES = { cert: 'ca-cert.pem', key: 'ca-key.pem' } as const;
export const SERVER_FILES = { cert: 'server-cert.pem', key: 'server-key.pem' } as const;
export const CLIENT_FILES = { cert: 'client-cert.pem', key: 'client-key.pem' } as const;

type PairFiles = typeof CA_FILES | typeof SERVER_FILES | typeof CLIENT_FILES;

/** Of a file that has not got its name. */
const NEW = '.new';
const DAYS_MAX = 36_500;

export async function loadPair(directory: string, files: PairFiles): Promise<PemPair> {
  const [cert, key] = await Promise.all(
    [files.cert, files.key].map((file) => readInput(join(directory, file))),
  );
  return { cert: cert.toString('utf8'), key: key.toString('utf8') };
}

/**
 * Both are durable under other names before either gets its own, the key first: a certificate that is there has its key beside
 * it, and `finishPair` ends what a crash cut off. Nothing is replaced.
 */
export async function writePair(directory: string, files: PairFiles, { cert, key }: PemPair): Promise<void> {
  const [keyPath, certPath] = [join(directory, files.key), join(directory, files.cert)];
  for (const path of [keyPath, certPath]) await refuseExisting(path);
  for (const path of [keyPath, certPath]) await rm(path + NEW, { force: true });
  await writeOutput(keyPath + NEW, key);
  await writeOutput(certPath + NEW, cert);
  await give(directory, [keyPath, certPath]);
}

/** After a crash in `writePair`: the certificate that belongs to a key which has its name already gets its own. */
export async function finishPair(directory: string, files: PairFiles): Promise<void> {
  const [keyPath, certPath] = [join(directory, files.key), join(directory, files.cert)];
  const [key, newKey] = await Promise.all([inodeOf(keyPath), inodeOf(keyPath + NEW)]);
  if (key === undefined || key !== newKey) return;
  await give(directory, (await exists(certPath)) ? [] : [certPath]);
  for (const path of [keyPath, certPath]) await rm(path + NEW, { force: true });
}

/** A link, unlike a rename, replaces nothing and follows nothing. */
async function give(directory: string, paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    // An empty file may be filled.
    if ((await lstat(path).catch(() => undefined))?.size === 0) await rm(path);
    await link(path + NEW, path);
    await syncDirectory(directory);
  }
  for (const path of paths.toReversed()) await rm(path + NEW, { force: true });
}

async function inodeOf(path: string): Promise<bigint | undefined> {
  try {
    return (await lstat(path, { bigint: true })).ino;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
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
