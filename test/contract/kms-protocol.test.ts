/** The protocol of KMS, on the fake. The same suite runs on moto in kms-protocol-moto.test.ts. */
import { KmsFake } from '../support/kms-fake/kms-fake.js';
import { kmsProtocolSuite } from './kms-protocol-suite.js';

kmsProtocolSuite(
  'the fake of KMS',
  async () => {
    const fake = await KmsFake.start();
    const { endpoint, region, administratorCredentials: credentials } = fake;
    return { target: { endpoint, region, credentials }, stop: () => fake.stop() };
  },
  new Set(),
);
