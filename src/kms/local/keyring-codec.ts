/**
 * The text of DIR/keyring.json. Key bytes move between the file's buffer and slots of the addon in place, so
 * that no JavaScript string ever holds one:
 *
 * - reading: every value of a field named "key" is moved into a slot, which masks it with '*'; only then is the
 *   text decoded and parsed;
 * - writing: the text is laid out with masks, and the addon writes the keys over them.
 */
import { z } from 'zod';
import { SealbdError } from '../../base/errors.js';
import { addon, type KeyHandle } from '../../native/addon.js';
import { releaseSecret, secretBuffer } from '../../native/secret-buffer.js';
import { secretFields } from '../secret-fields.js';

export const KEY_TEXT_BYTES = 44;
const MASK = '*'.repeat(KEY_TEXT_BYTES);
const WARNING =
  'These keys are NOT protected. Whoever can read this file, or a copy of it, can read every volume whose key is local:. ' +
  'Use a KMS key where that matters. Do not edit while sealbd runs.';

export interface LocalKey {
  readonly name: string;
  /** Tells this key from another one that had the same name. */
  readonly id: string;
  readonly createdAt: string;
  readonly handle: KeyHandle;
}

const fileSchema = z.strictObject({
  warning: z.string(),
  version: z.literal(1),
  keys: z.array(
    z.strictObject({
      name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/),
      id: z.uuid(),
      createdAt: z.string(),
      key: z.literal(MASK),
    }),
  ),
});

/** Takes the keys out of `text`, which holds masks afterwards. Throws INTEGRITY, with no slot left behind. */
export function decodeKeyring(text: Buffer): LocalKey[] {
  const handles: KeyHandle[] = [];
  try {
    for (const start of keyFields(text)) handles.push(addon.keyImportBase64(text, start));
    const parsed = fileSchema.safeParse(JSON.parse(text.toString('utf8')));
    if (!parsed.success || parsed.data.keys.length !== handles.length) {
      throw new SealbdError(
        'INTEGRITY',
        `not a version 1 keyring${parsed.success ? '' : firstIssue(parsed.error)}`,
      );
    }
    const names = new Set(parsed.data.keys.map((key) => key.name));
    if (names.size !== handles.length) throw new SealbdError('INTEGRITY', 'two keys of one name');
    return parsed.data.keys.map(({ name, id, createdAt }, i) => ({
      name,
      id,
      createdAt,
      handle: handles[i],
    }));
  } catch (error) {
    for (const handle of handles) addon.keyRelease(handle);
    // The parser's own message would quote the text.
    throw error instanceof SealbdError
      ? error
      : new SealbdError('INTEGRITY', 'not valid JSON, or a key is not base64');
  } finally {
    addon.wipe(text);
  }
}

/** The file's text with the keys in it. The caller releases it. */
export function encodeKeyring(keys: readonly LocalKey[]): Buffer {
  const entries = keys.map(({ name, id, createdAt }) => ({ name, id, createdAt, key: MASK }));
  const masked = `${JSON.stringify({ warning: WARNING, version: 1, keys: entries }, null, 2)}\n`;
  const text = secretBuffer(Buffer.byteLength(masked));
  try {
    text.write(masked);
    const starts = keyFields(text);
    keys.forEach((key, i) => {
      addon.keyExportBase64(key.handle, text, starts[i]);
    });
    return text;
  } catch (error) {
    releaseSecret(text);
    throw error;
  }
}

/** Where the values of fields named "key" start, in file order. */
function keyFields(text: Buffer): number[] {
  return secretFields(text, 'key').map(({ start, length }) => {
    if (length !== KEY_TEXT_BYTES) throw new SealbdError('INTEGRITY', 'a key has a wrong length');
    return start;
  });
}

function firstIssue(error: z.ZodError): string {
  return `: ${error.issues[0].path.join('.')} is wrong`;
}
