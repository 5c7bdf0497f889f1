/**
 * Certificates and pre-shared keys from their files. Certificates lie in one directory, under the names that GnuTLS
 * programs agree on: ca-cert.pem, server-cert.pem, server-key.pem, and ca-crl.pem where certificates were revoked.
 */
import { X509Certificate } from 'node:crypto';
import { promises as fs } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '../base/clock.js';
import { errnoOf, messageOf, SealbdError } from '../base/errors.js';
import { TLS_FILE_BYTES_MAX } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { TlsCredentials } from '../nbd/tls-server.js';
import type { TlsSource } from './config-tls.js';
import { parsePskFile } from './psk-file.js';

const EXPIRY_WARNING_MS = 14 * 86_400_000;

/** USAGE where a file is missing or is not what it should be. */
export async function loadCredentials(source: TlsSource, clock: Clock, log: Logger): Promise<TlsCredentials> {
  if (source.kind === 'psk') {
    const text = await read(source.path);
    await warnIfReadable(source.path, log);
    return { kind: 'psk', keys: parsePskFile(text, source.path) };
  }
  const { directory, verifyClients } = source;
  const keyPath = join(directory, 'server-key.pem');
  const certPath = join(directory, 'server-cert.pem');
  const [cert, key, ca, crl] = await Promise.all([
    read(certPath),
    read(keyPath),
    read(join(directory, 'ca-cert.pem')),
    readIfThere(join(directory, 'ca-crl.pem')),
  ]);
  await warnIfReadable(keyPath, log);
  await warnOfAuthority(join(directory, 'ca-key.pem'), log);
  warnOfExpiry(cert, certPath, clock, log);
  return { kind: 'certificates', cert, key, ca, crl, verifyClients };
}

async function read(path: string): Promise<string> {
  try {
    if ((await fs.stat(path)).size > TLS_FILE_BYTES_MAX) {
      throw new Error(`larger than ${TLS_FILE_BYTES_MAX} bytes`);
    }
    return await fs.readFile(path, 'utf8');
  } catch (error) {
    throw new SealbdError('USAGE', `TLS: cannot read ${path}: ${messageOf(error)}`, { cause: error });
  }
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await read(path);
  } catch (error) {
    if (error instanceof SealbdError && errnoOf(error.cause) === 'ENOENT') return undefined;
    throw error;
  }
}

async function warnIfReadable(path: string, log: Logger): Promise<void> {
  const { mode } = await fs.stat(path);
  if ((mode & 0o077) !== 0) {
    log.warn({ path, mode: (mode & 0o777).toString(8) }, 'a secret of TLS can be read by other users');
  }
}

/** The daemon has no use for it, and who breaks into the daemon has. */
async function warnOfAuthority(path: string, log: Logger): Promise<void> {
  try {
    await fs.lstat(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    throw error;
  }
  log.warn(
    { path },
    'the key of the CA lies beside the certificate of the server: who has it can sign clients',
  );
}

/** No reason to stop: who does not look at certificates can be served. */
function warnOfExpiry(pem: string, path: string, clock: Clock, log: Logger): void {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch (error) {
    throw new SealbdError('USAGE', `TLS: ${path} is no certificate: ${messageOf(error)}`, { cause: error });
  }
  const { validTo } = certificate;
  const leftMs = Date.parse(validTo) - clock.now();
  if (leftMs < EXPIRY_WARNING_MS) {
    log.warn(
      { path, validTo },
      `the certificate of the server ${leftMs < 0 ? 'has expired' : 'expires soon'}`,
    );
  }
}
