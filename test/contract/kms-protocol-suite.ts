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
  /** Why the server cannot run here: every test is skipped. */
  unavailable?: string,
): void {
  const title = unavailable === undefined ? name : `${name} (skipped: ${unavailable})`;
  describe.skipIf(unavailable !== undefined)(title, { timeout: TIMEOUT_MS }, () => {
    const kms = new KmsFixture(deviations);
    beforeAll(async () => kms.open(await start()), TIMEOUT_MS);
    afterAll(() => kms.close(), TIMEOUT_MS);

    keyTests(kms);
    ciphertextTests(kms);
    stateTests(kms);
    protocolTests(kms);
  });
}
