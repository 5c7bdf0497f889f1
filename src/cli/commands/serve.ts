import { closeSync, openSync } from 'node:fs';
import type { Command } from 'commander';
import { systemClock } from '../../base/clock.js';
import { MAP_BYTES_MAX, SHUTDOWN_DEADLINE_MS, STOP_DEADLINE_MS } from '../../base/limits.js';
import type { Logger } from '../../base/log.js';
import { nbdUri } from '../../daemon/addresses.js';
import { type DaemonConfig, resolveConfig, type ServeFlags } from '../../daemon/config.js';
import { limitRows } from '../../daemon/config-limits.js';
import type { TlsConfig } from '../../daemon/config-tls.js';
import { Daemon } from '../../daemon/daemon.js';
import { createLogger } from '../../daemon/logging.js';
import { ServiceManager } from '../../daemon/service-manager.js';
import { systemRandom } from '../../keys/random.js';
import { dataOption } from '../context.js';
import { EXIT } from '../exit-codes.js';
import { printTable } from '../output.js';

const KEEP_ALIVE_MS = 60_000;

/** Runs in the foreground until SIGTERM or SIGINT. */
export async function serve(
  flags: ServeFlags & { readonly printLimits?: boolean },
  command: Command,
): Promise<void> {
  const manager = new ServiceManager(process.env, process.pid);
  const { sockets } = manager;
  const config = resolveConfig({ ...flags, sockets, data: dataOption(command) }, process.env, process.cwd());
  if (flags.printLimits) {
    printLimits(config);
    return;
  }
  // What the daemon makes is for its user alone; modes that it gives on purpose stay within that.
  process.umask(0o077);
  const log = createLogger(config.logLevel);
  // Libraries write there what must not stand between the lines of the log.
  console.warn = (...parts: unknown[]) => log.warn({ reason: parts.join(' ') }, 'a library warns');
  const running: { daemon: Daemon | undefined } = { daemon: undefined };
  const asked = stopAsked(log, running);
  // The clock's timers do not hold the process; this does until everything is shut down.
  const alive = setInterval(() => undefined, KEEP_ALIVE_MS);
  try {
    const daemon = await Daemon.start(config, { clock: systemClock, random: systemRandom, log });
    running.daemon = daemon;
    announce(daemon, log, config.tls);
    manager.notify('READY=1', log);
    manager.keepAlive(systemClock, log);
    const signal = await asked;
    manager.notify('STOPPING=1', log);
    log.info({ signal }, 'stopping');
    const clean = await daemon.stop(log);
    log.info({}, clean ? 'stopped' : 'stopped, not in order');
    process.exitCode = clean ? EXIT.done : EXIT.failed;
    endWithoutIo(log);
  } finally {
    clearInterval(alive);
  }
}

function printLimits({ limits, tuning }: DaemonConfig): void {
  const rows = limitRows(limits, tuning.map_memory_max ?? MAP_BYTES_MAX);
  const head = ['limit', 'value', 'setting'];
  printTable(
    head,
    rows.map(({ limit, value, setting }) => [limit, value, setting ?? 'fixed']),
  );
}

/**
 * The first signal ends the daemon in order, the second at once: what was flushed is safe either way. A terminal
 * that goes away counts too, so that it does not take unflushed writes with it; but a SIGHUP that somebody sent has a
 * daemon with TLS read its certificates anew.
 */
function stopAsked(log: Logger, running: { readonly daemon: Daemon | undefined }): Promise<string> {
  const hadTerminal = hasTerminal();
  return new Promise((resolve) => {
    let asked = false;
    const onSignal = (signal: string): void => {
      const hungUp = hadTerminal && !hasTerminal();
      if (signal === 'SIGHUP' && !asked && !hungUp && running.daemon?.reloads) {
        void running.daemon.reload();
        return;
      }
      if (asked) exitNow();
      asked = true;
      // A store that answers no more (a network mount, say) must not keep the process, and so the keys, alive for ever.
      setTimeout(() => {
        log.error({ signal, deadlineMs: SHUTDOWN_DEADLINE_MS }, 'the stop took too long');
        exitNow();
      }, SHUTDOWN_DEADLINE_MS).unref();
      resolve(signal);
    };
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, onSignal);
  });
}

/** All is shut down. The process ends by itself, unless I/O of a job hangs: that is not waited for past a deadline. */
function endWithoutIo(log: Logger): void {
  setTimeout(() => {
    log.error({ deadlineMs: STOP_DEADLINE_MS }, 'I/O hangs: ending without it');
    exitNow();
  }, STOP_DEADLINE_MS).unref();
}

/** An exit in order joins the threads of the pool, and so would wait for one that hangs in I/O, for ever perhaps. */
function exitNow(): never {
  const isBusy = process.getActiveResourcesInfo().some((name) => name.startsWith('FSReq'));
  if (isBusy) process.kill(process.pid, 'SIGKILL');
  // The first process of a container is not killed by its own signal.
  process.exit(EXIT.failed);
}

/** The kernel takes a session's terminal away before it says so. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}

function announce(daemon: Daemon, log: Logger, tls: TlsConfig | undefined): void {
  const { listen, admin } = daemon.addresses;
  log.info({ listen, admin }, `ready: NBD on ${listen.join(', ')}; admin on ${admin.join(', ')}`);
  const [first] = listen;
  for (const name of daemon.exports) {
    const uri = nbdUri(first, name, tls?.required);
    const lines = tls?.required ? tlsAttachLines(uri, tls) : attachLines(first, name, uri);
    log.info({ volume: name, uri }, `attach ${name}: ${lines.join(' | ')}`);
  }
}

/** DIR and FILE are the client's: what is in them is his to have. */
function tlsAttachLines(uri: string, { source }: TlsConfig): string[] {
  const join = uri.includes('?') ? '&' : '?';
  const full = `${uri}${join}${source.kind === 'psk' ? 'tls-psk-file=FILE' : 'tls-certificates=DIR'}`;
  return [`nbdinfo '${full}'`, `nbdfuse MOUNTPOINT '${full}'`];
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
