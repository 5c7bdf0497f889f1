import type { Command } from 'commander';
import { systemClock } from '../../base/clock.js';
import { SHUTDOWN_DEADLINE_MS } from '../../base/limits.js';
import type { Logger } from '../../base/log.js';
import { nbdUri } from '../../daemon/addresses.js';
import { resolveConfig, type ServeFlags } from '../../daemon/config.js';
import { Daemon } from '../../daemon/daemon.js';
import { createLogger } from '../../daemon/logging.js';
import { systemRandom } from '../../daemon/random.js';
import { dataOption } from '../context.js';
import { EXIT } from '../exit-codes.js';

const KEEP_ALIVE_MS = 60_000;

/** Runs in the foreground until SIGTERM or SIGINT. */
export async function serve(flags: ServeFlags, command: Command): Promise<void> {
  const config = resolveConfig({ ...flags, data: dataOption(command) }, process.env, process.cwd());
  const log = createLogger(config.logLevel);
  // Libraries write there what must not stand between the lines of the log.
  console.warn = (...parts: unknown[]) => log.warn({ reason: parts.join(' ') }, 'a library warns');
  const asked = stopAsked(log);
  // The clock's timers do not hold the process; this does until everything is shut down.
  const alive = setInterval(() => undefined, KEEP_ALIVE_MS);
  try {
    const daemon = await Daemon.start(config, { clock: systemClock, random: systemRandom, log });
    announce(daemon, log);
    const signal = await asked;
    log.info({ signal }, 'stopping');
    const clean = await daemon.stop(log);
    log.info({}, clean ? 'stopped' : 'stopped, not in order');
    process.exitCode = clean ? EXIT.done : EXIT.failed;
  } finally {
    clearInterval(alive);
  }
}

/**
 * The first signal ends the daemon in order, the second at once: what was flushed is safe either way. A terminal
 * that goes away counts too, so that it does not take unflushed writes with it.
 */
function stopAsked(log: Logger): Promise<string> {
  return new Promise((resolve) => {
    let asked = false;
    const onSignal = (signal: string): void => {
      if (asked) process.exit(EXIT.failed);
      asked = true;
      // A store that answers no more (a network mount, say) must not keep the process, and so the keys, alive for ever.
      setTimeout(() => {
        log.error({ signal, deadlineMs: SHUTDOWN_DEADLINE_MS }, 'the stop took too long');
        process.exit(EXIT.failed);
      }, SHUTDOWN_DEADLINE_MS).unref();
      resolve(signal);
    };
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, onSignal);
  });
}

function announce(daemon: Daemon, log: Logger): void {
  const { listen, admin } = daemon.addresses;
  log.info({ listen, admin }, `ready: NBD on ${listen.join(', ')}; admin on ${admin.join(', ')}`);
  const [first] = listen;
  for (const name of daemon.exports) {
    const uri = nbdUri(first, name);
    log.info({ volume: name, uri }, `attach ${name}: ${attachLines(first, name, uri).join(' | ')}`);
  }
}

function attachLines(address: string, name: string, uri: string): string[] {
  const server = address.startsWith('unix:')
    ? `-unix ${address.slice('unix:'.length)}`
    : address.replace(/:(\d+)$/, ' $1').replace(/[[\]]/g, '');
  return [
    `nbdinfo '${uri}'`,
    `nbdfuse DIR '${uri}'`,
    `nbd-client ${server} /dev/nbd0 -N ${name}`,
    `qemu-system-x86_64 -drive file='${uri}',format=raw`,
  ];
}
