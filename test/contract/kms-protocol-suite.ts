/**
 * What any KMS must do, through the AWS client. The same tests run on the fake and on moto's server; `deviations` names
 * what a server is known to do otherwise, and then that is what is asserted.
 */
import { afterAll, beforeAll, describe } from 'vitest';
import { KmsFixture, type RunningKms } from './kms-fixture.js';
import { ciphertextTests } from './kms-suite-ciphertexts.js';
import { keyTests } from './kms-suite-keys.js';
import { protocolTests } from './kms-suite-protocol.js';
import { stateTests } from './kms-suite-states.js';
import type { Deviation } from './moto-deviations.js';

const TIMEOUT_MS = 90_000;

export function kmsProtocolSuite(
  name: string,
  start: () => Promise<RunningKms>,
  deviations: ReadonlySet<Deviation>,
): void {
  describe(name, { timeout: TIMEOUT_MS }, () => {
    const kms = new KmsFixture(deviations);
    beforeAll(async () => kms.open(await start()), TIMEOUT_MS);
    afterAll(() => kms.close(), TIMEOUT_MS);

    keyTests(kms);
    ciphertextTests(kms);
    stateTests(kms);
    protocolTests(kms);
  });
}
