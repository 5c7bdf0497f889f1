/** A listening socket of the addon. Accepts what is there; backs off where the process is out of descriptors. */

import { lookup } from 'node:dns/promises';
import { constants as os } from 'node:os';
import type { Clock, Timer } from '../base/clock.js';
import { ACCEPT_PAUSE_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { addon, IO_READABLE } from '../native/addon.js';
import {
  accept,
  closeSocket,
  describeErrno,
  listenOn,
  listenTcp,
  listenUnix,
  SocketTransport,
  unwatch,
  watch,
} from './poller.js';
import type { Transport } from './transport.js';
import { WOULD_BLOCK } from './transport.js';

export type ListenAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string; readonly mode: number };

const ACCEPTS_PER_EVENT_MAX = 64;
/** What the next connection may not meet: it was one peer's fault, not ours. */
const PEER_ERRORS = new Set([os.errno.ECONNABORTED, os.errno.EPROTO, os.errno.EPERM].map((errno) => -errno));

export class Listener {
  /** 'HOST:PORT', '[HOST]:PORT' or 'unix:PATH', with the port that was taken. */
  readonly address: string;
  readonly #socket: number;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #onTransport: (transport: Transport) => void;
  #pause: Timer | undefined;

  private constructor(
    socket: number,
    clock: Clock,
    log: Logger,
    onTransport: (transport: Transport) => void,
  ) {
    this.#socket = socket;
    this.#clock = clock;
    this.#log = log;
    this.#onTransport = onTransport;
    this.address = addon.ioName(socket, 0);
    this.#watch();
  }

  /** Listens on the first address that a host name stands for. */
  static async open(
    address: ListenAddress,
    clock: Clock,
    log: Logger,
    onTransport: (transport: Transport) => void,
  ): Promise<Listener> {
    if (address.kind === 'unix') {
      return new Listener(listenUnix(address.path, address.mode), clock, log, onTransport);
    }
    const { address: numeric } = await lookup(address.host);
    return new Listener(listenTcp(numeric, address.port), clock, log, onTransport);
  }

  /** Listens on a socket that was handed over as a descriptor. */
  static take(fd: number, clock: Clock, log: Logger, onTransport: (transport: Transport) => void): Listener {
    return new Listener(listenOn(fd), clock, log, onTransport);
  }

  close(): void {
    this.#pause?.cancel();
    closeSocket(this.#socket);
  }

  #watch(): void {
    watch(
      this.#socket,
      () => {
        this.#accept();
        return false;
      },
      IO_READABLE,
    );
  }

  #accept(): void {
    for (let i = 0; i < ACCEPTS_PER_EVENT_MAX; i++) {
      const socket = accept(this.#socket);
      if (socket === WOULD_BLOCK) return;
      if (socket < 0) {
        if (PEER_ERRORS.has(socket)) continue;
        this.#backOff(socket);
        return;
      }
      this.#onTransport(new SocketTransport(socket));
    }
  }

  /** The connection stays in the backlog, so the event would come again at once, and again. */
  #backOff(error: number): void {
    this.#log.warn(
      { address: this.address, error: describeErrno(error) },
      'cannot accept a connection, pausing',
    );
    unwatch(this.#socket);
    this.#pause = this.#clock.setTimeout(() => this.#watch(), ACCEPT_PAUSE_MS);
  }
}
