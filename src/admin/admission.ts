/**
 * Connections to an admin address that have not shown the token: a few, and none for long. A newcomer pushes out one of the address
 * that has the most of them: there one that has sent nothing yet, or has not ended its TLS handshake, before one that is further.
 * So whoever has no token can't keep out who has it.
 */
import type { Socket } from 'node:net';
import { ADMIN_TOKEN_TIMEOUT_MS, ADMIN_UNPROVEN_MAX } from '../base/limits.js';
import { networkOf } from '../base/peer-address.js';
import { Unproven } from '../base/unproven.js';

interface Connection {
  readonly socket: Socket;
  readonly timer: NodeJS.Timeout;
  secured: boolean;
}

export class Admission {
  readonly #unproven = new Unproven<Connection>();
  /** By the other end: under TLS a request comes on another socket object than the connection. */
  readonly #byName = new Map<string, Connection>();

  enter(socket: Socket): void {
    if (this.#unproven.size >= ADMIN_UNPROVEN_MAX) {
      const victim = this.#unproven.next(progressOf);
      if (victim !== undefined) {
        this.#forget(victim);
        victim.socket.destroy();
      }
    }
    const timer = setTimeout(() => socket.destroy(), ADMIN_TOKEN_TIMEOUT_MS);
    timer.unref();
    const name = nameOf(socket);
    const connection = { socket, timer, secured: false };
    this.#byName.set(name, connection);
    this.#unproven.add(networkOf(name), connection);
    socket.once('close', () => {
      this.#forget(connection);
      if (this.#byName.get(name) === connection) this.#byName.delete(name);
    });
  }

  /** Its TLS handshake has ended. */
  secure(socket: Socket): void {
    const connection = this.#byName.get(nameOf(socket));
    if (connection !== undefined) connection.secured = true;
  }

  /** A request with the token came on it. */
  prove(socket: Socket): void {
    const connection = this.#byName.get(nameOf(socket));
    if (connection !== undefined) this.#forget(connection);
  }

  #forget(connection: Connection): void {
    clearTimeout(connection.timer);
    this.#unproven.delete(connection);
  }
}

function progressOf({ socket, secured }: Connection): number {
  return secured ? 2 : socket.bytesRead > 0 ? 1 : 0;
}

function nameOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress}:${remotePort}`;
}
