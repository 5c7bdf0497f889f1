/**
 * Input of one connection: received straight into a chunk, parsed in place. Payload is never moved, but for the
 * part of a block that a chunk's end cuts off.
 */
import { BLOCK_BYTES, RECEIVE_BYTES_MAX, SMALL_CHUNK_BYTES } from '../base/limits.js';
import type { Chunk, ChunkPool } from './chunk-pool.js';
import { type Transport, WOULD_BLOCK } from './transport.js';

export class ReceiveBuffer {
  readonly #pool: ChunkPool;
  #chunk: Chunk | undefined;
  /** Unparsed bytes are [start, end) of the chunk's arena. */
  #start = 0;
  #end = 0;
  #large = false;

  constructor(pool: ChunkPool) {
    this.#pool = pool;
  }

  get available(): number {
    return this.#end - this.#start;
  }

  get start(): number {
    return this.#start;
  }

  /** The chunk that holds the available bytes. Only valid while there are some. */
  get chunk(): Chunk {
    if (this.#chunk === undefined) throw new Error('the receive buffer is empty');
    return this.#chunk;
  }

  /** True where no whole block fits behind the available bytes: the next `fill` moves on to another chunk. */
  get full(): boolean {
    return this.#chunk !== undefined && this.#chunk.end - this.#end < BLOCK_BYTES;
  }

  bytes(): Uint8Array {
    return this.#chunk?.arena.bytes.subarray(this.#start, this.#end) ?? new Uint8Array(0);
  }

  consume(count: number): void {
    if (count > this.available) throw new RangeError('consumed more than there is');
    this.#start += count;
  }

  /** Receives once, up to `bytesMax`: bytes, 0 at the end, WOULD_BLOCK, or another -errno. */
  fill(transport: Transport, bytesMax: number): number {
    const chunk = this.#roomy();
    const room = Math.min(chunk.end - this.#end, RECEIVE_BYTES_MAX, bytesMax);
    const count = transport.receive(chunk, this.#end, room);
    if (count > 0) {
      this.#end += count;
      this.#large = count >= SMALL_CHUNK_BYTES / 2;
    } else if (count === WOULD_BLOCK) {
      this.rest();
    }
    return count;
  }

  /** Gives the chunk back where nothing in it is waiting, or pinned: what is pinned shares it with what comes. */
  rest(): void {
    if (this.available === 0 && this.#chunk?.exclusive) this.clear();
  }

  /** A large chunk that belongs to this buffer alone: nothing but what the client sends next frees it. */
  get holdsLarge(): boolean {
    return this.#chunk?.large === true && this.#chunk.exclusive;
  }

  /**
   * What is left over, the beginning of a header or of a block, moves into a small chunk where it fits, so that it costs
   * nobody else a large one; and the next one must be earned anew. Called now and then, not after each receive.
   */
  shrink(): void {
    this.#large = false;
    if (!this.holdsLarge || this.available > SMALL_CHUNK_BYTES - BLOCK_BYTES) return;
    this.#moveTo(this.#take());
  }

  clear(): void {
    this.#chunk?.release();
    this.#chunk = undefined;
    this.#start = 0;
    this.#end = 0;
  }

  /** The current chunk if it has room, or another one that begins with what was left over. */
  #roomy(): Chunk {
    const current = this.#chunk;
    if (current === undefined) return this.#adopt(this.#take());
    if (this.available === 0 && current.exclusive) {
      this.#start = current.start;
      this.#end = current.start;
    }
    if (current.end - this.#end >= BLOCK_BYTES) return current;
    const next = this.#take();
    this.#moveTo(next);
    return next;
  }

  #moveTo(next: Chunk): void {
    const left = this.available;
    next.arena.bytes.set(this.bytes(), next.start);
    // This may free its memory: a view of it has no length any more then.
    this.#chunk?.release();
    this.#adopt(next);
    this.#end += left;
  }

  #adopt(chunk: Chunk): Chunk {
    this.#chunk = chunk;
    this.#start = chunk.start;
    this.#end = chunk.start;
    return chunk;
  }

  #take(): Chunk {
    const chunk = (this.#large ? this.#pool.takeInput() : undefined) ?? this.#pool.takeSmall(true);
    if (chunk === undefined) throw new Error('the pool owed a small chunk and gave none');
    return chunk;
  }
}
