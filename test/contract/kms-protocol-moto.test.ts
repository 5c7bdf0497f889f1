/** The same suite as on the fake, and the provider, on an implementation of KMS that nobody here wrote. */
import { awsProviderOnMoto } from './aws-provider-moto-suite.js';
import { kmsProtocolSuite } from './kms-protocol-suite.js';
import { type Deviation, MOTO_DEVIATIONS } from './moto-deviations.js';
import { installMoto, startMoto } from './moto-server.js';

const deviations = new Set(Object.keys(MOTO_DEVIATIONS) as Deviation[]);
const problem = await installMoto();
kmsProtocolSuite("moto's server", startMoto, deviations, problem);
awsProviderOnMoto(problem);
