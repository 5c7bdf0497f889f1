/** The same suite as on the fake, on an implementation of KMS that nobody here wrote. */
import { describe, it } from 'vitest';
import { kmsProtocolSuite } from './kms-protocol-suite.js';
import { type Deviation, MOTO_DEVIATIONS } from './moto-deviations.js';
import { installMoto, startMoto } from './moto-server.js';

const reason = await installMoto();
if (reason === undefined) {
  kmsProtocolSuite("moto's server", startMoto, new Set(Object.keys(MOTO_DEVIATIONS) as Deviation[]));
} else {
  describe.skip(`moto's server: it cannot be installed here: ${reason}`, () => {
    it('speaks the protocol of KMS');
  });
}
