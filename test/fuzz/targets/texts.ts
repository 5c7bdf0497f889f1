/** Texts that come from a disk, a client or a config: refused with the error that they should be refused with. */
import { isSealbdError } from '../../../src/base/errors.js';
import { parseDuration, parseSize } from '../../../src/base/units.js';
import { parseAddress } from '../../../src/daemon/addresses.js';
import { parsePskFile } from '../../../src/daemon/psk-file.js';
import { isKeyOf, parseAwsKeyUri, parseKeyArn } from '../../../src/kms/aws/key-uri.js';
import { decodeKeyring, encodeKeyring, type LocalKey } from '../../../src/kms/local/keyring-codec.js';
import { addon } from '../../../src/native/addon.js';
import { releaseSecret, secretBuffer } from '../../../src/native/secret-buffer.js';
import { parseSegmentFileName, segmentFileName } from '../../../src/segment/format.js';
import { decoded, requireThat } from './oracle.js';

const PARTS = [keyring, keyUri, units, address, preSharedKeys, segmentName] as const;

export function fuzz(data: Uint8Array): void {
  if (data.length === 0) return;
  PARTS[data[0] % PARTS.length](data.subarray(1));
}

function textOf(data: Uint8Array): string {
  return Buffer.from(data).toString('utf8');
}

function refusedAs<T>(code: 'USAGE', parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (isSealbdError(error, code)) return undefined;
    throw error;
  }
}

function keyring(data: Uint8Array): void {
  const before = addon.secureMemory().slotsUsed;
  const text = secretBuffer(data.length);
  text.set(data);
  const keys = decoded(() => decodeKeyring(text));
  requireThat(
    text.every((byte) => byte === 0),
    'what held keys is wiped',
  );
  releaseSecret(text);
  if (keys !== undefined) writtenAgain(keys);
  for (const { handle } of keys ?? []) addon.keyRelease(handle);
  requireThat(addon.secureMemory().slotsUsed === before, 'no slot is left behind');
}

function writtenAgain(keys: readonly LocalKey[]): void {
  const text = encodeKeyring(keys);
  const again = decodeKeyring(text);
  releaseSecret(text);
  requireThat(again.length === keys.length, 'a keyring that was written has as many keys');
  again.forEach(({ name, id, createdAt, handle }, i) => {
    const same = name === keys[i].name && id === keys[i].id && createdAt === keys[i].createdAt;
    requireThat(same && addon.keyEquals(handle, keys[i].handle), 'and the same ones');
    addon.keyRelease(handle);
  });
}

function keyUri(data: Uint8Array): void {
  const text = textOf(data);
  const arn = parseKeyArn(text);
  if (arn !== undefined) {
    requireThat(arn.arn === text, 'an ARN is all of the text');
    requireThat(/^[a-z0-9-]+$/.test(arn.region), 'a region is one label of a host name');
  }
  const uri = refusedAs('USAGE', () => parseAwsKeyUri(text));
  if (uri === undefined) return;
  requireThat(uri.uri === text && text.endsWith(uri.keyId), 'a URI means what it says');
  requireThat(uri.region === undefined || /^[a-z0-9-]+$/.test(uri.region), 'a region is one label');
  const named = parseKeyArn(uri.keyId);
  if (named !== undefined) requireThat(isKeyOf(uri, named), 'a URI of an ARN means that key');
}

function units(data: Uint8Array): void {
  const text = textOf(data);
  const size = refusedAs('USAGE', () => parseSize(text, 'size'));
  requireThat(
    size === undefined || (Number.isSafeInteger(size) && size >= 0),
    'a size is a whole number of bytes',
  );
  const time = refusedAs('USAGE', () => parseDuration(text, 'time'));
  requireThat(
    time === undefined || (Number.isFinite(time) && time >= 0),
    'a time is a number of milliseconds',
  );
}

function address(data: Uint8Array): void {
  const text = textOf(data);
  const found = refusedAs('USAGE', () => parseAddress(text, 'listen', '/base'));
  if (found?.kind === 'tcp') requireThat(found.port <= 65_535, 'a port has 16 bits');
}

function preSharedKeys(data: Uint8Array): void {
  const text = textOf(data);
  for (const key of refusedAs('USAGE', () => parsePskFile(text, 'psk'))?.values() ?? [])
    requireThat(key.length >= 16 && key.length <= 64, 'a pre-shared key has 16 to 64 bytes');
}

function segmentName(data: Uint8Array): void {
  const text = textOf(data);
  const id = parseSegmentFileName(text);
  if (id === undefined || !Number.isSafeInteger(id)) return;
  requireThat(segmentFileName(id) === text, 'a segment file has one name');
}
