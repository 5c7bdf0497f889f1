import { setImmediate } from 'node:timers/promises';
import { MemoryDevice } from '../support/memory-device.js';
import { nbdInteropSuite } from '../support/nbd-interop-suite.js';
import { startTestServer } from '../support/nbd-test-server.js';

const sizeBytes = 64 * 1024 * 1024;

async function start(device: MemoryDevice) {
  const { address, stop } = await startTestServer([device]);
  return { uri: `nbd://${address}/${device.name}`, sizeBytes, stop };
}

nbdInteropSuite('a device that completes at once', () => start(new MemoryDevice({ sizeBytes })));

nbdInteropSuite('a device that completes later and out of order', async () => {
  const device = new MemoryDevice({ sizeBytes });
  let operations = 0;
  device.delay = () => {
    // Every third waits for one turn of the loop, every seventh for two, the others complete at once.
    operations += 1;
    if (operations % 7 === 0) return setImmediate().then(() => setImmediate());
    return operations % 3 === 0 ? setImmediate() : undefined;
  };
  return await start(device);
});
