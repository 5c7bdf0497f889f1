/** The same suite as on the fake, on an implementation of KMS that nobody here wrote. */
import { kmsProtocolSuite } from './kms-protocol-suite.js';
import { type Deviation, MOTO_DEVIATIONS } from './moto-deviations.js';
import { installMoto, startMoto } from './moto-server.js';

const deviations = new Set(Object.keys(MOTO_DEVIATIONS) as Deviation[]);
kmsProtocolSuite("moto's server", startMoto, deviations, await installMoto());
