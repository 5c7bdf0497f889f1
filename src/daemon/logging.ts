/** The daemon's log: JSON lines on stderr. */
import { type DestinationStream, destination, pino, stdTimeFunctions } from 'pino';
import type { Logger } from '../base/log.js';

const STDERR = 2;
const SECRETS = [
  'passphrase',
  'token',
  'adminToken',
  'authorization',
  'dek',
  'kek',
  'key',
  'wrapped',
  'blob',
  'file',
];

/** Nothing passes key material to the log; should a field of such a name appear all the same, it is hidden. */
const REDACTED = SECRETS.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]);

export function createLogger(level: string, to: DestinationStream = stderr()): Logger {
  const redact = { paths: REDACTED, censor: '[hidden]' };
  return pino({ level, base: { pid: process.pid }, timestamp: stdTimeFunctions.isoTime, redact }, to);
}

/** Synchronous, so that the last lines before an exit are there. */
function stderr(): DestinationStream {
  const stream = destination({ fd: STDERR, sync: true });
  // A reader of the log that went away must not take the volumes down with it; there is nowhere to report it.
  stream.on('error', () => undefined);
  return stream;
}
