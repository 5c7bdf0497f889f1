/** A checkpoint root under the right key decodes to nothing or to what encodes to the same bytes again. */

import { addon } from '../../../src/native/addon.js';
import { decodeRoot, encodeRoot, type RootKeys } from '../../../src/volume/checkpoint-root.js';
import { copyOf, decoded, KEY, MAC_BYTES, requireSame, UUID } from './oracle.js';

const LABEL = 'sealbd/v1/checkpoint';
const UUID_AT = 16;
const ANY_DEK = 2;
const KEYS: RootKeys = {
  handles: new Map([...Array(ANY_DEK).keys()].map((id) => [id, KEY])),
  trusts: () => true,
};

export function fuzz(data: Uint8Array): void {
  decoded(() => decodeRoot(data, UUID, KEYS));
  const bytes = copyOf(data);
  if (bytes.length < UUID_AT + UUID.length + MAC_BYTES) return;
  bytes.set(UUID, UUID_AT);
  const covered = bytes.subarray(0, bytes.length - MAC_BYTES);
  bytes.set(addon.keyMac(KEY, LABEL, UUID, covered), covered.length);
  const root = decoded(() => decodeRoot(bytes, UUID, KEYS));
  if (root !== undefined) requireSame(encodeRoot(UUID, root, KEY), bytes, 'checkpoint root');
}
