import { mkdir } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join, resolve } from 'node:path';
import { SealbdError } from '../../base/errors.js';
import { print } from '../output.js';
import {
  CA_FILES,
  CLIENT_FILES,
  exists,
  finishPair,
  loadPair,
  parseDays,
  SERVER_FILES,
  writePair,
} from '../tls/files.js';

const CA_DAYS = 3650;
const LOOPBACK = ['localhost', '127.0.0.1', '::1'];
const DNS_NAME =
  /^(?=.{1,253}$)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$/;

export interface TlsInitOptions {
  readonly host: readonly string[];
  readonly client: string;
  readonly days: string;
}

/** Makes what is missing of CA, server and client. To renew one, remove its two files first. */
export async function tlsInit(path: string, options: TlsInitOptions): Promise<void> {
  const directory = resolve(path);
  const hosts = [...new Set([...options.host.map(parseHost), ...LOOPBACK])];
  const validity = { nowMs: Date.now(), days: parseDays(options.days) };
  const { Authority, parseCommonName } = await import('../tls/authority.js');
  const client = parseCommonName(options.client);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  for (const files of [CA_FILES, SERVER_FILES, CLIENT_FILES]) await finishPair(directory, files);
  if (!(await exists(join(directory, CA_FILES.cert)))) {
    await writePair(directory, CA_FILES, await Authority.create('sealbd CA', { ...validity, days: CA_DAYS }));
  }
  const authority = await Authority.load(await loadPair(directory, CA_FILES));
  const made: string[] = [];
  if (!(await exists(join(directory, SERVER_FILES.cert)))) {
    await writePair(directory, SERVER_FILES, await authority.issue({ kind: 'server', hosts }, validity));
    made.push(`a server for ${hosts.join(', ')}`);
  }
  if (!(await exists(join(directory, CLIENT_FILES.cert)))) {
    await writePair(
      directory,
      CLIENT_FILES,
      await authority.issue({ kind: 'client', name: client }, validity),
    );
    made.push(`a client CN=${client}`);
  }
  print(made.length === 0 ? `${path}: everything is there already` : `${path}: made ${made.join(' and ')}`);
  if (made.length > 0) print(nextSteps(path));
}

function parseHost(host: string): string {
  if (isIP(host) !== 0 || DNS_NAME.test(host)) return host;
  throw new SealbdError('USAGE', `--host: "${host}" is neither a host name nor an address`);
}

function nextSteps(path: string): string {
  return [
    `keep ${CA_FILES.key} where the daemon does not run: who has it can sign clients`,
    `server:  sealbd serve --tls-certificates ${path} --listen HOST:PORT`,
    `client:  copy ${CA_FILES.cert}, ${CLIENT_FILES.cert} and ${CLIENT_FILES.key} into a directory DIR of its own there;`,
    "         nbdinfo 'nbds://HOST:PORT/NAME?tls-certificates=DIR'",
  ].join('\n');
}
