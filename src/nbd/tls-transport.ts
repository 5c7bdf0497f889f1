/**
 * A connection's bytes through Node's TLS. Node pushes what it decrypts and takes what it is given; this turns
 * that into what a transport is: readiness, reads into chunks, sends that say how much was taken. One write is under
 * way at a time, and the peer is not read from while TLS_BYTES_MAX wait here, so both ways are bounded.
 */
import type { Socket } from 'node:net';
import { constants as os } from 'node:os';
import type { TLSSocket } from 'node:tls';
import {
  LINGER_MS,
  SMALL_CHUNK_BYTES,
  TLS_BYTES_MAX,
  TLS_BYTES_SHORT_MAX,
  TLS_RECORD_COST_BYTES,
} from '../base/limits.js';
import { IO_HANGUP, IO_READABLE, IO_WRITABLE } from '../native/addon.js';
import type { Chunk, ChunkPool } from './chunk-pool.js';
import type { PeerIdentity } from './peer-identity.js';
import { type SendBatch, type Transport, type TransportEvents, WOULD_BLOCK } from './transport.js';

/** A write that Node has: the chunk holds its bytes until Node is done with them. */
interface Sending {
  readonly chunk: Chunk;
  readonly bytes: number;
}

export class TlsTransport implements Transport {
  readonly peer: string;
  events: TransportEvents | undefined;
  readonly #raw: Socket;
  readonly #pool: ChunkPool;
  /** Undefined while the handshake lasts. */
  #socket: TLSSocket | undefined;
  #identity: PeerIdentity | undefined;
  readonly #received: Buffer[] = [];
  /** Of what was received and not taken: bytes, and what each buffer costs beside them. */
  #held = 0;
  #sending: Sending | undefined;
  #interest = 0;
  #scheduled = false;
  /** A write has ended, which was not reported yet. */
  #flushed = false;
  #ended = false;
  #closed = false;
  /** -errno once the connection is of no more use. */
  #failure = 0;

  constructor(raw: Socket, peer: string, pool: ChunkPool) {
    this.#raw = raw;
    this.peer = peer;
    this.#pool = pool;
  }

  get identity(): PeerIdentity | undefined {
    return this.#identity;
  }

  get unflushedBytes(): number {
    return this.#sending?.bytes ?? 0;
  }

  // For the server that does the handshake.

  secured(socket: TLSSocket, identity: PeerIdentity | undefined): void {
    if (this.#closed) {
      socket.destroy();
      return;
    }
    this.#socket = socket;
    this.#identity = identity;
    // A client that leaves during the handshake is gone; one that ends its side later still gets its answers.
    socket.allowHalfOpen = true;
    socket.on('data', (bytes: Buffer) => this.#take(bytes));
    socket.on('end', () => {
      this.#ended = true;
      this.#schedule();
    });
    socket.on('error', () => this.failed());
    socket.on('close', () => this.failed());
    this.#schedule();
  }

  failed(): void {
    if (this.#failure !== 0) return;
    this.#failure = -os.errno.ECONNRESET;
    this.#schedule();
  }

  // For the connection.

  receive(chunk: Chunk, offset: number, length: number): number {
    if (this.#received.length === 0) {
      if (this.#ended) return 0;
      return this.#failure === 0 ? WOULD_BLOCK : this.#failure;
    }
    let done = 0;
    let freed = 0;
    while (done < length && this.#received.length > 0) {
      const bytes = this.#received[0];
      const count = Math.min(bytes.length, length - done);
      chunk.arena.bytes.set(bytes.subarray(0, count), offset + done);
      // Node frees this memory without wiping it.
      bytes.fill(0, 0, count);
      freed += count;
      if (count === bytes.length) {
        this.#received.shift();
        freed += TLS_RECORD_COST_BYTES;
      } else {
        this.#received[0] = bytes.subarray(count);
      }
      done += count;
    }
    this.#hold(-freed);
    if (this.#socket?.isPaused() && this.#held < this.#allowance) this.#socket.resume();
    return done;
  }

  send(batch: SendBatch): number {
    if (this.#failure !== 0) return this.#failure;
    if (this.#socket === undefined || this.#sending !== undefined) return WOULD_BLOCK;
    const first = batch.bytesOf(0);
    const alone = batch.count === 1 || first.length >= SMALL_CHUNK_BYTES;
    if (!alone) return this.#gather(batch);
    const chunk = batch.chunkOf(0);
    chunk.retain();
    return this.#write(chunk, first.subarray(0, this.#allowance));
  }

  setInterest(mask: number): void {
    this.#interest = mask;
    this.#schedule();
  }

  finish(): void {
    this.#socket?.end();
  }

  /** What was taken is still sent, for LINGER_MS at most. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const bytes of this.#received.splice(0)) bytes.fill(0);
    this.#hold(-this.#held);
    if (this.#socket === undefined || this.#failure !== 0 || this.#sending === undefined) {
      this.#raw.destroy();
      return;
    }
    this.#socket.destroySoon();
    const deadline = setTimeout(() => this.#raw.destroy(), LINGER_MS);
    this.#socket.once('close', () => clearTimeout(deadline));
  }

  release(): number {
    throw new Error('a connection under TLS is not handed over');
  }

  #take(bytes: Buffer): void {
    if (this.#closed) {
      bytes.fill(0);
      return;
    }
    this.#received.push(bytes);
    this.#hold(bytes.length + TLS_RECORD_COST_BYTES);
    if (this.#held >= this.#allowance) this.#socket?.pause();
    this.#schedule();
  }

  /** One way. What Node holds of it comes out of the memory of the server. */
  get #allowance(): number {
    return this.#pool.mayLend ? TLS_BYTES_MAX : TLS_BYTES_SHORT_MAX;
  }

  #hold(cost: number): void {
    this.#held += cost;
    this.#pool.lend(cost);
  }

  /** Many small pieces as one: each write costs a turn of the loop and a record. */
  #gather(batch: SendBatch): number {
    const chunk = this.#pool.takeSmall(true)!;
    const room = Math.min(SMALL_CHUNK_BYTES, this.#allowance);
    let total = 0;
    for (let i = 0; i < batch.count && total < room; i++) {
      const bytes = batch.bytesOf(i).subarray(0, room - total);
      chunk.arena.bytes.set(bytes, chunk.start + total);
      total += bytes.length;
    }
    return this.#write(chunk, chunk.arena.bytes.subarray(chunk.start, chunk.start + total));
  }

  #write(chunk: Chunk, bytes: Uint8Array): number {
    const sending = { chunk, bytes: bytes.length };
    this.#sending = sending;
    this.#pool.lend(sending.bytes);
    this.#socket?.write(bytes, (error) => {
      this.#sending = undefined;
      this.#flushed = true;
      this.#pool.lend(-sending.bytes);
      chunk.release();
      if (error) this.failed();
      this.#schedule();
    });
    return sending.bytes;
  }

  /** What there is to report of what is asked for. */
  get #ready(): number {
    const flushed = this.#flushed ? IO_WRITABLE : 0;
    if (this.#interest === 0) return flushed;
    const failed = this.#failure !== 0;
    const readable = this.#received.length > 0 || this.#ended || failed;
    const writable = this.#socket !== undefined && this.#sending === undefined;
    const mask = (readable ? IO_READABLE : 0) | (writable ? IO_WRITABLE : 0);
    return (mask & this.#interest) | flushed | (failed ? IO_HANGUP : 0);
  }

  /** Reports in the next turn, so that what arrives in this one is handed on together. */
  #schedule(): void {
    if (this.#scheduled || this.#closed || this.#ready === 0) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      const mask = this.#closed ? 0 : this.#ready;
      if (mask === 0) return;
      this.#flushed = false;
      this.events?.onReady(mask);
      // As with a socket: what is still so is reported again.
      this.#schedule();
    });
  }
}
