/**
 * A file of pre-shared keys as GnuTLS's psktool writes it: a line for each, `NAME:HEXKEY`. A name that begins with `#`
 * is itself in hex, as GnuTLS has it for names that are no text. Errors name the line and quote nothing of it.
 */
import { SealbdError } from '../base/errors.js';

/** 128 bits: what is shorter can be guessed from one recorded handshake. */
const KEY_BYTES_MIN = 16;
const KEY_BYTES_MAX = 64;
/** What OpenSSL takes. */
const NAME_BYTES_MAX = 256;
const HEX = /^(?:[0-9a-fA-F]{2})+$/;

/** Name to key. USAGE where a line is not one, or a name comes twice, or there is none. */
export function parsePskFile(text: string, path: string): Map<string, Uint8Array> {
  const keys = new Map<string, Uint8Array>();
  text.split('\n').forEach((line, i) => {
    const refuse = (what: string) => new SealbdError('USAGE', `TLS: ${path}: line ${i + 1}: ${what}`);
    const trimmed = line.trim();
    if (trimmed === '') return;
    const colon = trimmed.lastIndexOf(':');
    const hex = trimmed.slice(colon + 1);
    const name = colon < 1 ? undefined : decodeName(trimmed.slice(0, colon));
    if (name === undefined || !HEX.test(hex)) throw refuse('expected NAME:HEXKEY');
    if (Buffer.byteLength(name) > NAME_BYTES_MAX) throw refuse(`a name of more than ${NAME_BYTES_MAX} bytes`);
    const bytes = hex.length / 2;
    if (bytes < KEY_BYTES_MIN || bytes > KEY_BYTES_MAX) {
      throw refuse(`a key of ${bytes} bytes; expected ${KEY_BYTES_MIN} to ${KEY_BYTES_MAX}`);
    }
    if (keys.has(name)) throw refuse('a name that was there before');
    keys.set(name, Buffer.from(hex, 'hex'));
  });
  if (keys.size === 0) throw new SealbdError('USAGE', `TLS: ${path} has no keys; expected NAME:HEXKEY`);
  return keys;
}

function decodeName(text: string): string | undefined {
  if (!text.startsWith('#')) return text;
  const hex = text.slice(1);
  return HEX.test(hex) ? Buffer.from(hex, 'hex').toString('utf8') : undefined;
}
