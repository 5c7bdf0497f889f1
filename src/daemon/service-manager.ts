/**
 * What systemd hands over, and what it is told (sd_listen_fds(3), sd_notify(3)). Where the environment says nothing of it,
 * none of this happens.
 */
import { getSystemErrorName } from 'node:util';
import type { Clock, Timer } from '../base/clock.js';
import type { Logger } from '../base/log.js';
import { addon } from '../native/addon.js';

const FIRST_SOCKET = 3;
const SOCKETS_MAX = 64;
const OWN_VARIABLES = [
  'LISTEN_PID',
  'LISTEN_FDS',
  'LISTEN_FDNAMES',
  'NOTIFY_SOCKET',
  'WATCHDOG_USEC',
  'WATCHDOG_PID',
];

export class ServiceManager {
  /** Descriptors of listening sockets, for NBD. */
  readonly sockets: readonly number[];
  readonly #notifySocket: string | undefined;
  readonly #watchdogMs: number | undefined;

  /** Takes its variables out of the environment: they are not for children. */
  constructor(environment: NodeJS.ProcessEnv, pid: number) {
    const { NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID } = environment;
    this.sockets = handedOver(environment, pid);
    this.#notifySocket = NOTIFY_SOCKET === '' ? undefined : NOTIFY_SOCKET;
    const forUs = WATCHDOG_PID === undefined || WATCHDOG_PID === String(pid);
    const intervalUs = Number(WATCHDOG_USEC);
    this.#watchdogMs = forUs && intervalUs > 0 ? intervalUs / 1000 : undefined;
    for (const name of OWN_VARIABLES) delete environment[name];
  }

  /** `READY=1`, `STOPPING=1` and the like. A manager that does not listen is no reason to end. */
  notify(state: string, log: Logger): void {
    if (this.#notifySocket === undefined) return;
    const result = addon.ioNotify(this.#notifySocket, state);
    if (result < 0) {
      log.warn({ state, error: getSystemErrorName(result) }, 'the service manager could not be told');
    }
  }

  /** From here on says twice an interval that the event loop turns, until the process ends. */
  keepAlive(clock: Clock, log: Logger): Timer | undefined {
    if (this.#watchdogMs === undefined) return undefined;
    const everyMs = this.#watchdogMs / 2;
    let timer: Timer;
    const beat = (): void => {
      this.notify('WATCHDOG=1', log);
      timer = clock.setTimeout(beat, everyMs);
    };
    beat();
    return { cancel: () => timer.cancel() };
  }
}

function handedOver({ LISTEN_PID, LISTEN_FDS }: NodeJS.ProcessEnv, pid: number): number[] {
  const count = Number(LISTEN_FDS);
  if (LISTEN_PID !== String(pid) || !Number.isInteger(count) || count < 1 || count > SOCKETS_MAX) return [];
  return Array.from({ length: count }, (_, i) => FIRST_SOCKET + i);
}
