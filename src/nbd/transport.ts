/**
 * What carries a connection's bytes: a socket of the addon, or (under TLS) a stream of Node. It moves bytes
 * between the wire and chunks, reports readiness, and knows nothing of NBD.
 */
import type { Chunk } from './chunk-pool.js';
import type { PeerIdentity } from './peer-identity.js';

/** No bytes now; readiness will be reported. */
export const WOULD_BLOCK = -11;

/** Bytes of chunks, in the order in which they go out. */
export class SendBatch {
  static readonly PIECES_MAX = 64;
  /** Pairs of ref and length, as the addon takes them. */
  readonly pieces = new Float64Array(2 * SendBatch.PIECES_MAX);
  readonly #chunks: Chunk[] = [];
  #count = 0;
  #bytes = 0;

  get count(): number {
    return this.#count;
  }

  get full(): boolean {
    return this.#count === SendBatch.PIECES_MAX;
  }

  get bytes(): number {
    return this.#bytes;
  }

  clear(): void {
    this.#count = 0;
    this.#bytes = 0;
  }

  /** `offset` is of the chunk's arena. */
  add(chunk: Chunk, offset: number, length: number): void {
    const at = 2 * this.#count;
    this.pieces[at] = chunk.arena.ref(offset);
    this.pieces[at + 1] = length;
    this.#chunks[this.#count] = chunk;
    this.#count += 1;
    this.#bytes += length;
  }

  chunkOf(i: number): Chunk {
    return this.#chunks[i];
  }

  /** The bytes of one piece, for a transport that cannot use refs. */
  bytesOf(i: number): Uint8Array {
    const { arena } = this.#chunks[i];
    const offset = this.pieces[2 * i] - arena.ref(0);
    return arena.bytes.subarray(offset, offset + this.pieces[2 * i + 1]);
  }
}

export interface TransportEvents {
  /**
   * A mask of IO_READABLE, IO_WRITABLE and IO_HANGUP, limited to the interest that was set; IO_WRITABLE comes unasked
   * where what `send` took has left, so that chunks are free which the transport held. True where the peer got its
   * answer, waits for nothing else, and so may well ask again at once.
   */
  onReady(mask: number): boolean;
}

export interface Transport {
  /** For logs and `status`. */
  readonly peer: string;
  /** Who the peer proved to be; undefined where it proved nothing. */
  readonly identity: PeerIdentity | undefined;
  /** Bytes that `send` took and that are not with the kernel yet. */
  readonly unflushedBytes: number;
  events: TransportEvents | undefined;
  /** Into [offset, offset + length) of the chunk's arena: bytes, 0 at the end, WOULD_BLOCK, or another -errno. */
  receive(chunk: Chunk, offset: number, length: number): number;
  /** Bytes taken, perhaps fewer than given, WOULD_BLOCK, or another -errno. */
  send(batch: SendBatch): number;
  setInterest(mask: number): void;
  /** Nothing more will be sent. */
  finish(): void;
  close(): void;
  /** Gives the descriptor away, for another transport to go on with; this one is of no use from then on. */
  release(): number;
}
