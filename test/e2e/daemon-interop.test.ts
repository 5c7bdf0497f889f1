/** The real daemon under real NBD clients, one export for each suite that encrypts. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DaemonProcess } from '../support/daemon-process.js';
import { nbdInteropSuite } from '../support/nbd-interop-suite.js';

const SIZE_BYTES = 256 * 2 ** 20;

for (const cipher of ['aes-256-gcm', 'aes-256-ctr']) {
  nbdInteropSuite(`a volume of ${cipher}`, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'sealbd-interop-'));
    const daemon = await DaemonProcess.startShared(join(directory, 'data'));
    await daemon.ok('volume', 'create', 'v', '--size', String(SIZE_BYTES), '--cipher', cipher);
    return {
      uri: daemon.uri('v'),
      sizeBytes: SIZE_BYTES,
      stop: async () => {
        const { code, stderr } = await daemon.stop();
        rmSync(directory, { recursive: true, force: true });
        if (code !== 0) throw new Error(`the daemon ended with ${code}:\n${stderr}`);
      },
    };
  });
}
