/** The manifest of a backup decodes to nothing or to what encodes to the same bytes again. */
import { decodeManifest, encodeManifest, manifestAuthenticates } from '../../../src/backup/manifest.js';
import { addon } from '../../../src/native/addon.js';
import { copyOf, decoded, getUint32, KEY, MAC_BYTES, requireSame, requireThat, setUint32 } from './oracle.js';

const HEAD_BYTES = 216;
const BODY_LENGTH_AT = 208;

export function fuzz(data: Uint8Array): void {
  manifest(data);
  manifest(withCrc(data));
}

function withCrc(data: Uint8Array): Uint8Array {
  const copy = copyOf(data);
  if (copy.length < HEAD_BYTES) return copy;
  const end = HEAD_BYTES + getUint32(copy, BODY_LENGTH_AT) + MAC_BYTES;
  if (end + 4 === copy.length) setUint32(copy, end, addon.crc32c(copy.subarray(0, end), 0));
  return copy;
}

function manifest(bytes: Uint8Array): void {
  const found = decoded(() => decodeManifest(bytes, 'manifest'));
  if (found === undefined) return;
  const back = encodeManifest(found.manifest, KEY);
  requireSame(back.subarray(0, found.covered.length), found.covered, 'manifest');
  requireThat(back.length === bytes.length, 'a manifest has one length');
  requireThat(manifestAuthenticates(decodeManifest(back, 'manifest'), KEY), 'its MAC holds');
}
