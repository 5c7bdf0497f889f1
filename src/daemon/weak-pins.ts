/** Pins that prove less than whoever wrote them believes. */
import { isSealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { HeaderPins } from '../keys/header-unwrap.js';
import type { KeyProviders } from '../kms/registry.js';

/** A pin holds as well as the key that it names, and of several as the weakest. */
export function warnOfWeakPins(
  pins: ReadonlyMap<string, HeaderPins>,
  providers: KeyProviders,
  log: Logger,
): void {
  for (const [volume, { uuid, keyUris }] of pins) {
    for (const keyUri of keyUris ?? []) {
      const weakness = weaknessOf(keyUri, providers);
      if (weakness !== undefined) log.warn({ volume, keyUri }, `the pinned key proves little: ${weakness}`);
    }
    if (uuid !== undefined && keyUris === undefined) {
      log.warn(
        { volume },
        'the uuid is pinned without a key: another volume can claim it under a key of its own',
      );
    }
  }
}

/** What is wrong with the URI comes out where the volume is opened; here it is a pin that nothing fits. */
function weaknessOf(keyUri: string, providers: KeyProviders): string | undefined {
  try {
    return providers.weaknessAsPin(keyUri);
  } catch (error) {
    if (isSealbdError(error, 'USAGE')) return `no volume fits it, since ${error.message}`;
    throw error;
  }
}
