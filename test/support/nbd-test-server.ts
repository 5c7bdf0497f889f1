/** A server on loopback for tests, with a log that they can look at. */
import { systemClock } from '../../src/base/clock.js';
import type { Logger } from '../../src/base/log.js';
import type { BlockDevice } from '../../src/device/block-device.js';
import { NbdServer, type NbdServerOptions } from '../../src/nbd/server.js';
import { exportsOf, MemoryDevice } from './memory-device.js';

export interface LogLine {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly fields: object;
  readonly message: string;
}

export function recordingLogger(lines: LogLine[]): Logger {
  const at = (level: LogLine['level']) => (fields: object, message: string) => {
    lines.push({ level, fields, message });
  };
  const logger: Logger = {
    debug: at('debug'),
    info: at('info'),
    warn: at('warn'),
    error: at('error'),
    child: () => logger,
  };
  return logger;
}

export interface TestServer {
  readonly server: NbdServer;
  readonly address: string;
  readonly log: LogLine[];
  stop(): Promise<void>;
}

export async function startTestServer(
  devices: readonly BlockDevice[],
  options: Partial<NbdServerOptions> = {},
): Promise<TestServer> {
  const log: LogLine[] = [];
  const server = new NbdServer({
    exportsFor: () => exportsOf(...devices),
    clock: systemClock,
    log: recordingLogger(log),
    ...options,
  });
  const address = await server.listen({ kind: 'tcp', host: '127.0.0.1', port: 0 });
  return {
    server,
    address,
    log,
    async stop() {
      await server.stop(1000);
      for (const device of devices) if (device instanceof MemoryDevice) device.free();
    },
  };
}

/** Waits until `condition` holds; fails with `what` after a while. */
export async function eventually(condition: () => boolean, what: string, timeoutMs = 20_000): Promise<void> {
  const end = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
