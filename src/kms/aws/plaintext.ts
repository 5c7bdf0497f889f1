/**
 * A DEK on its way to and from KMS. The SDK would make strings of it. So it never sees one:
 *
 * - Encrypt: the SDK writes the request around 32 zero bytes. Each attempt copies the finished bytes to a buffer, where the
 *   addon writes the key over them. That is what is signed and sent, and wiped with the end of the attempt: between two
 *   there is none.
 * - Decrypt: the answer is a buffer, in which the addon takes the key out of the text before the SDK parses it.
 */
import type { DecryptCommand, EncryptCommand } from '@aws-sdk/client-kms';
import { errnoOf, isSealbdError } from '../../base/errors.js';
import { addon, type KeyHandle } from '../../native/addon.js';
import { releaseSecret, secretBuffer } from '../../native/secret-buffer.js';
import { KmsError } from '../provider.js';
import { secretFields, type TextRange } from '../secret-fields.js';
import type { Answer } from './http-handler.js';

/** What the SDK sees in place of a DEK. */
export const NO_KEY = new Uint8Array(32);
const NO_KEY_TEXT = Buffer.from(NO_KEY).toString('base64');
const FIELD = 'Plaintext';
const PADDING = 0x3d;

/** Runs `send`, which sends `command` (its Plaintext must be `NO_KEY`) until `signal`, with `dek` in each attempt. */
export async function sendingKey<T>(
  command: EncryptCommand,
  dek: KeyHandle,
  signal: AbortSignal,
  send: () => Promise<T>,
): Promise<T> {
  command.middlewareStack.addRelativeTo(
    <A extends { request?: unknown }, R>(next: (args: A) => Promise<R>) =>
      async (args: A): Promise<R> => {
        signal.throwIfAborted();
        const request = args.request as { body: unknown };
        const written = request.body;
        const body = bodyWithKey(written, dek);
        request.body = body;
        try {
          return await next(args);
        } finally {
          request.body = written;
          releaseSecret(body);
        }
      },
    // Within the retries, and before what is sent is signed.
    { relation: 'before', toMiddleware: 'httpSigningMiddleware', name: 'sealbdSendKey' },
  );
  return send();
}

/** `text` with the key in it. The caller releases it. */
export function bodyWithKey(text: unknown, dek: KeyHandle): Buffer {
  if (!(text instanceof Uint8Array)) throw new TypeError('the SDK wrote a request that is not bytes');
  const body = secretBuffer(text.length);
  try {
    body.set(text);
    const [field, ...others] = secretFields(body, FIELD);
    if (field === undefined || others.length > 0 || textOf(body, field) !== NO_KEY_TEXT) {
      throw new TypeError('the SDK wrote a request without one place for the key');
    }
    addon.keyExportBase64(dek, body, field.start);
    return body;
  } catch (error) {
    releaseSecret(body);
    throw error;
  }
}

/** Runs `send`, which sends `command`, and returns what it gives with the key of the answer, which the caller owns. */
export async function receivingKey<T>(
  command: DecryptCommand,
  signal: AbortSignal,
  send: () => Promise<T>,
): Promise<{ output: T; key: KeyHandle }> {
  let key: KeyHandle | undefined;
  command.middlewareStack.add(
    (next) => async (args) => {
      const result = await next(args);
      const answer = result.response as Answer;
      // What the SDK takes for an error holds no key.
      if (answer.statusCode >= 300) return result;
      // Nobody would release the key of an answer that comes after the request was given up.
      if (signal.aborted) {
        addon.wipe(answer.body);
        return result;
      }
      // One of an attempt before this, after which the SDK still saw fit to ask again.
      if (key !== undefined) addon.keyRelease(key);
      key = undefined;
      key = takeKey(answer.body);
      return result;
    },
    // After the SDK's own of this step: what this one sees comes straight from the connection.
    { step: 'deserialize', name: 'sealbdReceiveKey', priority: 'low' },
  );
  try {
    const output = await send();
    if (key === undefined)
      throw new TypeError('the SDK took an answer past the place where its key is taken out');
    return { output, key };
  } catch (error) {
    if (key !== undefined) addon.keyRelease(key);
    throw error;
  }
}

/**
 * Moves the one key in the text of an answer to a slot, which the caller owns; in the text, that of `NO_KEY` takes its
 * place. Where there is no such key all of the text is wiped: SyntaxError where it is no answer of KMS, damaged where
 * what was wrapped is not the size of a DEK.
 */
export function takeKey(text: Buffer): KeyHandle {
  try {
    const field = onlyField(text);
    const bytes = decodedBytes(text, field);
    if (bytes === undefined) throw new SyntaxError('a Plaintext that is not base64');
    if (bytes !== NO_KEY.length) throw notKey();
    const key = addon.keyImportBase64(text, field.start);
    text.write(NO_KEY_TEXT, field.start, 'latin1');
    return key;
  } catch (error) {
    addon.wipe(text);
    // Base64 that no encoder writes.
    throw errnoOf(error) === 'EINVAL' ? new SyntaxError('a Plaintext that is not base64') : error;
  }
}

function notKey(): KmsError {
  return new KmsError('damaged', `the wrapped DEK holds something that is not ${NO_KEY.length} bytes`);
}

/** How many bytes the base64 text stands for; undefined where it is none, or empty. No string is made of it. */
function decodedBytes(text: Buffer, { start, length }: TextRange): number | undefined {
  if (length === 0 || length % 4 !== 0) return undefined;
  let padding = 0;
  while (padding < 2 && text[start + length - 1 - padding] === PADDING) padding += 1;
  for (let at = start; at < start + length - padding; at += 1) if (!isBase64(text[at])) return undefined;
  return (length / 4) * 3 - padding;
}

function isBase64(byte: number): boolean {
  return (
    (byte >= 0x41 && byte <= 0x5a) || // A-Z
    (byte >= 0x61 && byte <= 0x7a) || // a-z
    (byte >= 0x30 && byte <= 0x39) || // 0-9
    byte === 0x2b ||
    byte === 0x2f
  );
}

function onlyField(text: Buffer): TextRange {
  let fields: TextRange[];
  try {
    fields = secretFields(text, FIELD);
  } catch (error) {
    if (isSealbdError(error, 'INTEGRITY')) throw new SyntaxError('an answer that is cut short');
    throw error;
  }
  const [field, ...others] = fields;
  if (field === undefined || others.length > 0) throw new SyntaxError('an answer without one Plaintext');
  return field;
}

function textOf(bytes: Buffer, { start, length }: TextRange): string {
  return bytes.toString('latin1', start, start + length);
}
