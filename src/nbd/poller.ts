/** Sockets of the addon in this environment, and who handles their events. */
import { getSystemErrorMap, getSystemErrorName } from 'node:util';
import { SealbdError } from '../base/errors.js';
import { ACCEPT_BACKLOG, SOCKET_BUFFER_BYTES } from '../base/limits.js';
import { addon } from '../native/addon.js';
import type { Chunk } from './chunk-pool.js';
import type { SendBatch, Transport, TransportEvents } from './transport.js';

const EVENTS_MAX = 256;

/** True where more is likely to come at once. */
type Handler = (mask: number) => boolean | undefined;

const handlers = new Map<number, Handler>();
const events = new Float64Array(2 * EVENTS_MAX);
let started = false;

function dispatch(count: number): boolean {
  let failure: unknown;
  let failed = false;
  let soon = false;
  for (let i = 0; i < count; i++) {
    // A handler that ran before may have closed this one.
    const handler = handlers.get(events[2 * i]);
    try {
      soon = handler?.(events[2 * i + 1]) === true;
    } catch (error) {
      // The others get their turn first; then the mistake is reported as uncaught.
      failure ??= error;
      failed = true;
    }
  }
  if (failed) throw failure;
  return soon && count === 1;
}

function start(): void {
  if (started) return;
  check(addon.ioStart(events, dispatch), 'cannot watch sockets');
  started = true;
}

/** Throws where the addon returned -errno. */
function check(result: number, what: string): number {
  if (result < 0) throw new SealbdError('FAILED', `${what}: ${describeErrno(result)}`);
  return result;
}

export function describeErrno(result: number): string {
  const text = getSystemErrorMap().get(result)?.[1];
  return text === undefined ? `errno ${-result}` : `${text} (${getSystemErrorName(result)})`;
}

export function listenTcp(address: string, port: number): number {
  start();
  return check(addon.ioListenTcp(address, port, ACCEPT_BACKLOG), `cannot listen on ${address} port ${port}`);
}

export function listenUnix(path: string, mode: number): number {
  start();
  return check(addon.ioListenUnix(path, mode, ACCEPT_BACKLOG), `cannot listen on unix:${path}`);
}

/** A listener that somebody else opened. The descriptor is taken over. */
export function listenOn(fd: number): number {
  start();
  return check(addon.ioListenOn(fd), `descriptor ${fd} is no listening socket`);
}

export function watch(socket: number, handler: Handler, mask: number): void {
  handlers.set(socket, handler);
  check(addon.ioInterest(socket, mask), 'cannot watch a socket');
}

export function unwatch(socket: number): void {
  check(addon.ioInterest(socket, 0), 'cannot stop watching a socket');
}

export function closeSocket(socket: number): void {
  handlers.delete(socket);
  addon.ioClose(socket);
}

/** Sockets of this environment, listeners included. */
export function openSockets(): number {
  return addon.ioSockets();
}

/** A connection, or -errno. */
export function accept(listener: number): number {
  return addon.ioAccept(listener, SOCKET_BUFFER_BYTES);
}

export class SocketTransport implements Transport {
  readonly peer: string;
  readonly identity = undefined;
  readonly unflushedBytes = 0;
  events: TransportEvents | undefined;
  readonly #socket: number;
  #mask = 0;

  constructor(socket: number) {
    this.#socket = socket;
    const peer = addon.ioName(socket, 1);
    // The client's end of a unix socket has no name.
    this.peer = peer === 'unix:' ? addon.ioName(socket, 0) : peer;
    handlers.set(socket, (mask) => this.events?.onReady(mask));
  }

  receive(chunk: Chunk, offset: number, length: number): number {
    return addon.ioReceive(this.#socket, chunk.arena.ref(offset), length);
  }

  send(batch: SendBatch): number {
    return addon.ioSend(this.#socket, batch.pieces, batch.count);
  }

  setInterest(mask: number): void {
    if (mask === this.#mask) return;
    check(addon.ioInterest(this.#socket, mask), 'cannot watch a connection');
    this.#mask = mask;
  }

  finish(): void {
    addon.ioFinish(this.#socket);
  }

  close(): void {
    closeSocket(this.#socket);
  }

  release(): number {
    handlers.delete(this.#socket);
    return check(addon.ioRelease(this.#socket), 'cannot hand a connection over');
  }
}
