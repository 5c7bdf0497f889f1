/** What may be asked of a new volume, before anything is made. */
import { type CipherName, suiteName, suiteOf } from '../base/ciphers.js';
import { SealbdError } from '../base/errors.js';
import { BLOCK_BYTES, NAME_PATTERN, VOLUME_BYTES_MAX, VOLUME_BYTES_MIN } from '../base/limits.js';
import { formatSize } from '../base/units.js';
import type { HeaderPins } from '../keys/header-unwrap.js';
import { localKeyName } from '../kms/local/provider.js';

const DEFAULT_KEY_URI = 'local:default';

export interface CreateVolumeRequest {
  readonly name: string;
  readonly sizeBytes: number;
  readonly cipher: CipherName;
  readonly keyUri?: string | undefined;
}

/** The key of a new volume: the one asked for, the pinned one, the default. USAGE or CONFLICT where it may not be. */
export function resolveKeyUri(request: CreateVolumeRequest, pins: HeaderPins | undefined): string {
  const { name, cipher, sizeBytes } = request;
  if (!NAME_PATTERN.test(name))
    throw new SealbdError('USAGE', `"${name}" is no volume name: expected ${NAME_PATTERN.source}`);
  assertSize(sizeBytes);
  if (cipher === 'none' && request.keyUri !== undefined) {
    throw new SealbdError('USAGE', 'a volume with the cipher none has no key');
  }
  const keyUri = request.keyUri ?? pins?.keyUris?.[0] ?? DEFAULT_KEY_URI;
  if (keyUri.startsWith('local:')) localKeyName(keyUri);
  if (pins === undefined) return keyUri;
  if (pins.uuid !== undefined)
    throw new SealbdError('CONFLICT', `the configuration pins the uuid of "${name}": ${pins.uuid}`);
  if (pins.suite !== undefined && pins.suite !== suiteOf(cipher)) {
    throw new SealbdError(
      'CONFLICT',
      `the configuration pins the cipher of "${name}": ${suiteName(pins.suite)}`,
    );
  }
  // A `none` volume has no key: under a pinned one it would not open.
  if (pins.keyUris !== undefined && (cipher === 'none' || !pins.keyUris.includes(keyUri))) {
    throw new SealbdError(
      'CONFLICT',
      `the configuration pins the key of "${name}": ${pins.keyUris.join(' or ')}`,
    );
  }
  return keyUri;
}

export function assertSize(sizeBytes: number): void {
  if (sizeBytes >= VOLUME_BYTES_MIN && sizeBytes <= VOLUME_BYTES_MAX && sizeBytes % BLOCK_BYTES === 0) return;
  const range = `${formatSize(VOLUME_BYTES_MIN)} to ${formatSize(VOLUME_BYTES_MAX)}`;
  throw new SealbdError(
    'USAGE',
    `size ${sizeBytes}: expected a multiple of ${BLOCK_BYTES} bytes from ${range}`,
  );
}
