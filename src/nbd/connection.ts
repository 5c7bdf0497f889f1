/**
 * One client, from accept to close: feeds the handshake, then the session; sends what they queue; decides when to
 * read, when to pause and when to go. Events come from the transport, from completed device operations (`kick`)
 * and from the server's sweep (`tick`).
 */
import { messageOf } from '../base/errors.js';
import { LINGER_MS } from '../base/limits.js';
import type { BlockDevice, StepBudget } from '../device/block-device.js';
import { IO_READABLE, IO_WRITABLE } from '../native/addon.js';
import type { ChunkPool } from './chunk-pool.js';
import type { ConnectionHost } from './connection-host.js';
import type { Counters } from './counters.js';
import type { ExportSource, NbdClient } from './exports.js';
import { Handshake } from './handshake.js';
import type { NbdLimits, Share } from './nbd-limits.js';
import type { NegotiationHost, Outcome, TlsMode } from './negotiation.js';
import type { PeerIdentity } from './peer-identity.js';
import { ReceiveBuffer } from './receive-buffer.js';
import { ReceiveWatch } from './receive-watch.js';
import { ReplyBuffer } from './reply-buffer.js';
import { SendWatch } from './send-watch.js';
import { Session, type SessionHost } from './session.js';
import { type Transport, type TransportEvents, WOULD_BLOCK } from './transport.js';
import { type Work, WorkWatch } from './work-watch.js';

/** After so many requests that came one by one the client is taken to wait for each answer. */
const IN_TURN_MIN = 32;

type State = 'handshake' | 'serving' | 'lingering' | 'closed';

export class Connection implements SessionHost, NegotiationHost, NbdClient, TransportEvents {
  readonly id: number;
  readonly input: ReceiveBuffer;
  readonly output: ReplyBuffer;
  readonly pool: ChunkPool;
  readonly counters: Counters;
  readonly limits: NbdLimits;
  readonly #host: ConnectionHost;
  readonly #handshake: Handshake;
  #transport: Transport;
  #session: Session | undefined;
  #state: State = 'handshake';
  #secured = false;
  #exports: ExportSource | undefined;
  /** Requests in a row that came alone and were answered at once. */
  #inTurn = 0;
  /** Stop reading until something completes. */
  #paused = false;
  /** Whatever else the client sends is not listened to. */
  #deaf = false;
  /** The socket took no more: it will report when it does. */
  #socketFull = false;
  /** Once nothing is in flight and all is sent, close: at once, or after the client had time to read. */
  #leaving: 'close' | 'linger' | undefined;
  #deadline: number;
  readonly #sends: SendWatch;
  readonly #receives: ReceiveWatch;
  readonly #works = new WorkWatch();
  #kicked = false;
  /** Among the handshakes that go on in their turn. */
  #inLine = false;
  /** Chunks that it waits for. */
  #lacking = 0;
  #retrying = false;
  readonly #waiter = { retry: () => this.#memoryIsBack() };
  #waitingForExtents = false;
  #detach: (() => void) | undefined;

  constructor(host: ConnectionHost, transport: Transport, id: number) {
    this.id = id;
    this.#host = host;
    this.pool = host.pool;
    this.counters = host.counters;
    this.limits = host.limits;
    this.input = new ReceiveBuffer(host.pool);
    this.output = new ReplyBuffer(host.pool);
    this.#transport = transport;
    const now = host.monotonic();
    this.#sends = new SendWatch(now, this.limits.sendStallMs, this.limits.sendBytesPerSecond);
    this.#receives = new ReceiveWatch(now);
    this.#deadline = now + this.limits.handshakeMs;
    transport.events = this;
    this.#handshake = new Handshake(this);
  }

  // For the server.

  /** Sends the greeting. From here on the connection may close at any time. */
  start(): void {
    this.#guarded(() => this.#settle());
  }

  get peer(): string {
    return this.#transport.peer;
  }

  /** The export being served, if the handshake is over. */
  get exportName(): string | undefined {
    return this.#session?.device.name;
  }

  get identity(): PeerIdentity | undefined {
    return this.#transport.identity;
  }

  get inFlight(): number {
    return this.#session?.inFlight ?? 0;
  }

  /** What its requests since the last call were like, or those that are in flight yet. */
  workSinceLast(): Work {
    return this.#session === undefined ? 'none' : this.#works.sinceLast(this.#session);
  }

  /** Answers what is in flight, refuses what comes, then closes. */
  dismiss(reason: string): void {
    if (this.#state !== 'serving' || this.#session === undefined) {
      if (this.#state === 'handshake') this.close();
      return;
    }
    if (this.#session.refusing) return;
    this.#host.log.info({ connection: this.id, export: this.exportName, reason }, 'closing a connection');
    this.#session.refusing = true;
    this.#leaving ??= 'linger';
    this.kick();
  }

  /** Leaves at once: it is still in the handshake, and somebody else begins one. */
  makeRoom(): void {
    this.#drop('a newer connection has its place');
  }

  tick(now: number): void {
    if (this.#state === 'handshake' && now > this.#deadline) {
      this.#drop('the handshake took too long');
      return;
    }
    if (this.#state === 'lingering' && now > this.#deadline) {
      this.close();
      return;
    }
    const unsentBytes = this.output.unsentBytes + this.#transport.unflushedBytes;
    if (this.#sends.isSlow(now, unsentBytes, this.pool.short)) {
      this.#drop('the client does not take its replies, or too slowly');
      return;
    }
    this.input.shrink();
    if (this.#session !== undefined && this.open) this.#tickServing(now, this.#session, unsentBytes);
  }

  #tickServing(now: number, session: Session, unsentBytes: number): void {
    const { receiveStallMs, idleMs } = this.limits;
    const idle = session.inFlight === 0 && unsentBytes === 0 && !session.awaitsMore;
    const awaited = session.awaitsMore && this.#reading;
    const silentMs = this.#receives.silence(now, idle || awaited);
    const headerMs = this.#receives.headerAge(now, session.awaitsHeader, session.requests);
    const slow = this.#receives.isSlow(now, awaited && this.pool.short && this.input.holdsLarge);
    if (slow || headerMs > receiveStallMs || (!idle && silentMs > receiveStallMs)) {
      this.#drop('the client does not go on with its request');
      return;
    }
    if (idle && idleMs !== undefined && silentMs > idleMs) this.dismiss('the client asks for nothing');
  }

  /** Closes now, whatever is unsent. Operations under way finish and are not answered. */
  close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.#transport.events = undefined;
    this.#transport.close();
    this.input.clear();
    this.output.clear();
    this.#handshake.end();
    this.#lacking = 0;
    this.pool.forget(this.#waiter);
    this.#sends.wake(0);
    this.#detachIfIdle();
    this.#host.closed(this);
  }

  // For the handshake.

  get exports(): ExportSource {
    this.#exports ??= this.#host.exportsFor(this);
    return this.#exports;
  }

  get tls(): TlsMode {
    if (this.#host.tls === undefined) return 'off';
    return this.#host.tls.required ? 'required' : 'optional';
  }

  get secured(): boolean {
    return this.#secured;
  }

  get shuttingDown(): boolean {
    return this.#host.shuttingDown;
  }

  attach(device: BlockDevice): void {
    this.#detach = device.attach((reason) => this.dismiss(reason));
  }

  reply(bytes: Uint8Array): void {
    this.output.append(bytes);
  }

  lend(bytes: number): void {
    this.pool.lend(bytes);
  }

  // For the session.

  get open(): boolean {
    return this.#state === 'serving';
  }

  kick(): void {
    if (this.#kicked) return;
    this.#kicked = true;
    queueMicrotask(() => {
      this.#kicked = false;
      this.#guarded(() => this.#resume());
    });
  }

  flushEarly(): void {
    if (!this.open) return;
    this.#flush();
    // Whoever flushes early may wait for room next, so nothing else would ask to be told of it.
    this.#watch();
  }

  waitForMemory(chunks: number): void {
    if (this.#lacking > 0) return;
    this.#lacking = chunks;
    if (!this.#retrying) this.pool.wait(this.#waiter, chunks);
  }

  get extentSteps(): StepBudget | undefined {
    return this.#host.extentTurns.steps;
  }

  waitForExtents(): void {
    if (this.#waitingForExtents) return;
    this.#waitingForExtents = true;
    this.#host.extentTurns.wait(() => {
      this.#waitingForExtents = false;
      this.#guarded(() => this.#resume());
    });
  }

  get share(): Share {
    return this.#host.share;
  }

  whenPendingAtMost(bytes: number): Promise<void> | undefined {
    if (!this.open || this.output.pendingBytes <= bytes) return undefined;
    return this.#sends.whenAtMost(bytes);
  }

  // For the transport.

  onReady(mask: number): boolean {
    const before = this.#session?.requests ?? 0;
    this.#guarded(() => {
      // A hang-up counts as writable, so that a send finds out what happened.
      if ((mask & ~IO_READABLE) !== 0) {
        this.#socketFull = false;
        this.#flush();
      }
      // A hang-up is read too: what the client sent before it counts, and then comes the end or the error.
      if ((mask & ~IO_WRITABLE) !== 0 && this.#reading) this.#receive();
      this.#resume();
    });
    const served = (this.#session?.requests ?? 0) - before;
    const idle = this.inFlight === 0 && this.output.unsentBytes === 0 && this.input.available === 0;
    this.#inTurn = served === 1 && idle ? this.#inTurn + 1 : 0;
    return this.#inTurn >= IN_TURN_MIN;
  }

  get #reading(): boolean {
    if (this.#state === 'lingering') return true;
    return this.#state !== 'closed' && !this.#paused && !this.#deaf;
  }

  #receive(): void {
    const count = this.input.fill(this.#transport, this.share.bytesPerTurn);
    if (count === WOULD_BLOCK) return;
    if (count < 0) {
      this.close();
      return;
    }
    if (this.#state === 'lingering') {
      if (count === 0) {
        this.close();
        return;
      }
      this.input.clear();
      return;
    }
    if (count === 0) {
      this.#endInput('close');
      return;
    }
    this.#receives.progress(count);
    this.#advance();
  }

  /** Parses what is there. */
  #advance(): void {
    if (this.#state === 'handshake') this.#negotiate();
    if (this.#state !== 'serving' || this.#session === undefined) return;
    const progress = this.#session.process();
    this.#paused = progress === 'paused';
    if (progress === 'disconnect') this.#endInput('close');
    if (progress === 'lost') {
      this.counters.dropped += 1;
      this.#host.log.info(
        { connection: this.id, peer: this.peer },
        'a client sent something that is no request',
      );
      this.#endInput('linger');
    }
  }

  /** Leaves when what is in flight has been answered. */
  #endInput(how: 'close' | 'linger'): void {
    this.#deaf = true;
    this.#leaving = how;
    this.input.clear();
  }

  /**
   * Hands the handshake what is there, up to one answer, or one part of a long one. The next is begun when this one is with
   * the kernel, so that no client has more than a small chunk of them, and not in the same turn of the event loop.
   */
  #negotiate(): void {
    let later = false;
    while (this.#state === 'handshake' && !this.#deaf && this.#hasOptions) {
      this.#paused = later || this.output.unsentBytes > 0;
      if (this.#paused) return;
      const { consumed, outcome } = this.#handshake.feed(this.input.bytes());
      this.input.consume(consumed);
      this.#apply(outcome);
      later = outcome.kind === 'again';
    }
  }

  get #hasOptions(): boolean {
    return this.input.available > 0 || this.#handshake.answering;
  }

  #apply(outcome: Outcome): void {
    switch (outcome.kind) {
      case 'more':
      case 'again':
        return;
      case 'transmit':
        this.#session = new Session(this, outcome.negotiated);
        this.#state = 'serving';
        this.#host.served(this);
        return;
      case 'starttls':
        this.#startTls();
        return;
      case 'close':
        this.#endInput('linger');
        return;
      case 'drop':
        this.#drop(outcome.reason);
        return;
    }
  }

  /** The acknowledgement goes out in the clear; whatever the client sent behind STARTTLS does not count. */
  #startTls(): void {
    this.input.clear();
    this.#flush();
    // The client may be gone, and the transport with it.
    if (this.#isClosed()) return;
    if (this.#host.tls === undefined || this.output.unsentBytes > 0) {
      this.#drop('cannot start TLS');
      return;
    }
    this.#transport.events = undefined;
    this.#transport = this.#host.tls.upgrade(this.#transport, this.pool);
    this.#transport.events = this;
    this.#secured = true;
    // Who it is shows in the handshake, and before that no option comes.
    this.#exports = undefined;
  }

  #resume(): void {
    if (this.#state === 'closed') {
      this.#detachIfIdle();
      return;
    }
    if (this.#paused) {
      this.#paused = false;
      this.#advance();
    }
    this.#settle();
  }

  /** After anything that happened: send, leave if it is time, and say what to be told about next. */
  #settle(): void {
    if (this.#state === 'closed') return;
    this.#flush();
    if (this.#isClosed()) return;
    this.input.rest();
    if (this.pool.short) this.input.shrink();
    this.output.rest();
    this.#sends.wake(this.output.pendingBytes);
    if (this.#leaving !== undefined && this.inFlight === 0 && this.output.unsentBytes === 0) this.#leave();
    // What held it up has gone with this very flush: no event will come to say so. Others get their turn first.
    if (this.#paused) this.#goOnLater();
    this.#watch();
  }

  #goOnLater(): void {
    if (this.#state === 'serving') {
      const waiting = this.#lacking > 0 || this.#waitingForExtents;
      if (this.#session?.roomy === true && !waiting) setImmediate(() => this.kick());
      return;
    }
    if (this.#state !== 'handshake' || this.output.unsentBytes > 0 || this.#inLine) return;
    this.#inLine = true;
    this.#host.turns.add(() => {
      this.#inLine = false;
      this.#guarded(() => this.#resume());
    });
  }

  #watch(): void {
    if (this.#isClosed()) return;
    const readable = this.#reading ? IO_READABLE : 0;
    this.#transport.setInterest(readable | (this.output.unsentBytes > 0 ? IO_WRITABLE : 0));
  }

  #leave(): void {
    if (this.#state === 'lingering') return;
    if (this.#leaving === 'close') {
      this.close();
      return;
    }
    this.#transport.finish();
    this.#state = 'lingering';
    this.#deadline = this.#host.monotonic() + LINGER_MS;
    this.input.clear();
    this.#detachIfIdle();
  }

  #flush(): void {
    if (this.output.unsentBytes === 0 || this.#socketFull) return;
    const sent = this.output.flush(this.#transport, this.share.bytesPerTurn);
    if (sent < 0) {
      this.close();
      return;
    }
    // What is left waits for the socket to say that it has room: asking it before is a wasted call, or not our turn.
    this.#socketFull = this.output.unsentBytes > 0;
    this.#sends.progress(sent);
  }

  #memoryIsBack(): number {
    this.#lacking = 0;
    this.#retrying = true;
    this.#guarded(() => this.#resume());
    this.#retrying = false;
    return this.#lacking;
  }

  /** The device hears of the departure when its last operation for this client is done. */
  #detachIfIdle(): void {
    if (this.inFlight > 0 || this.#detach === undefined) return;
    this.#detach();
    this.#detach = undefined;
    this.#host.departed();
  }

  #drop(reason: string): void {
    this.counters.dropped += 1;
    this.#host.log.info({ connection: this.id, peer: this.peer, reason }, 'dropped a connection');
    this.close();
  }

  #isClosed(): boolean {
    return this.#state === 'closed';
  }

  /** A mistake of ours costs one connection, not the daemon. */
  #guarded(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#host.log.error(
        { connection: this.id, peer: this.peer, error: messageOf(error) },
        'a connection failed',
      );
      this.close();
    }
  }
}
