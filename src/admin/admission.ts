/**
 * Connections to an admin address that have not shown the token: a few, of which the newest pushes out the oldest, and none
 * for long. So whoever has no token can't keep out who has it.
 */
import type { Socket } from 'node:net';
import { ADMIN_TOKEN_TIMEOUT_MS, ADMIN_UNPROVEN_MAX } from '../base/limits.js';

interface Unproven {
  readonly socket: Socket;
  readonly timer: NodeJS.Timeout;
}

export class Admission {
  /** Oldest first, by the other end: under TLS a request comes on another socket object than the connection. */
  readonly #unproven = new Map<string, Unproven>();

  enter(socket: Socket): void {
    const name = nameOf(socket);
    if (this.#unproven.size >= ADMIN_UNPROVEN_MAX) {
      const [[oldest, { socket: other }]] = this.#unproven;
      this.#forget(oldest);
      other.destroy();
    }
    const timer = setTimeout(() => socket.destroy(), ADMIN_TOKEN_TIMEOUT_MS);
    timer.unref();
    this.#unproven.set(name, { socket, timer });
    socket.once('close', () => {
      if (this.#unproven.get(name)?.socket === socket) this.#forget(name);
    });
  }

  /** A request with the token came on it. */
  prove(socket: Socket): void {
    this.#forget(nameOf(socket));
  }

  #forget(name: string): void {
    clearTimeout(this.#unproven.get(name)?.timer);
    this.#unproven.delete(name);
  }
}

function nameOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
