/**
 * Output of one connection. Room for a reply is reserved in a chunk, filled in place, and committed to the queue
 * when it is whole; replies that lie side by side leave as one piece. Everything queued by a batch of requests
 * goes out in one sendmsg.
 */
import { ARENA_CHUNK_BYTES, SMALL_CHUNK_BYTES } from '../base/limits.js';
import type { Chunk, ChunkPool } from './chunk-pool.js';
import { SendBatch, type Transport, WOULD_BLOCK } from './transport.js';

interface Entry {
  readonly chunk: Chunk;
  offset: number;
  length: number;
}

/** Fewer queued entries than this are not worth moving when the first ones are gone. */
const COMPACT_MIN = 64;
// Sends are synchronous, so one batch serves all connections of this thread.
const batch = new SendBatch();

export class ReplyBuffer {
  readonly #pool: ChunkPool;
  readonly #entries: Entry[] = [];
  #head = 0;
  #chunk: Chunk | undefined;
  #next = 0;
  #unsentBytes = 0;
  #reservedBytes = 0;

  constructor(pool: ChunkPool) {
    this.#pool = pool;
  }

  get unsentBytes(): number {
    return this.#unsentBytes;
  }

  /** What is unsent, and what is being filled. */
  get pendingBytes(): number {
    return this.#unsentBytes + this.#reservedBytes;
  }

  /** Most bytes that one reservation can have. */
  static readonly RESERVE_BYTES_MAX = ARENA_CHUNK_BYTES;

  /**
   * Room for `bytes` in a row: returns the offset in the arena of `chunk`, or -1 where memory is short. With
   * `owed`, for at most a small chunk, it always succeeds.
   */
  reserve(bytes: number, owed: boolean): number {
    if (this.#chunk === undefined || this.#chunk.end - this.#next < bytes) {
      const fresh = this.#take(bytes, owed);
      if (fresh === undefined) return -1;
      this.#chunk?.release();
      this.#chunk = fresh;
      this.#next = fresh.start;
    }
    const at = this.#next;
    this.#next += bytes;
    this.#reservedBytes += bytes;
    return at;
  }

  /** The chunk of the latest reservation. */
  get chunk(): Chunk {
    if (this.#chunk === undefined) throw new Error('nothing is reserved');
    return this.#chunk;
  }

  /** Gives a reservation up; its room is used again if it is still the latest. */
  unreserve(chunk: Chunk, offset: number, length: number): void {
    this.#reservedBytes -= length;
    if (this.#chunk === chunk && this.#next === offset + length) this.#next = offset;
  }

  /** Queues bytes that were reserved. */
  commit(chunk: Chunk, offset: number, length: number): void {
    this.#reservedBytes -= length;
    this.enqueue(chunk, offset, length);
  }

  /** Queues bytes of a chunk that somebody else has taken. */
  enqueue(chunk: Chunk, offset: number, length: number): void {
    const last = this.#entries.length > this.#head ? this.#entries[this.#entries.length - 1] : undefined;
    if (last !== undefined && last.chunk === chunk && last.offset + last.length === offset) {
      last.length += length;
    } else {
      chunk.retain();
      this.#entries.push({ chunk, offset, length });
    }
    this.#unsentBytes += length;
  }

  /** Queues a copy of bytes that are no payload. */
  append(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; done += SMALL_CHUNK_BYTES) {
      const part = bytes.subarray(done, done + SMALL_CHUNK_BYTES);
      const at = this.reserve(part.length, true);
      this.chunk.arena.bytes.set(part, at);
      this.commit(this.chunk, at, part.length);
    }
  }

  /** Sends what the transport takes, up to `bytesMax`. Returns the bytes sent, or -errno (never WOULD_BLOCK). */
  flush(transport: Transport, bytesMax: number): number {
    let total = 0;
    while (this.#unsentBytes > 0 && total < bytesMax) {
      batch.clear();
      for (let i = this.#head; i < this.#entries.length && !batch.full; i++) {
        const { chunk, offset, length } = this.#entries[i];
        const room = bytesMax - total - batch.bytes;
        if (room > 0) batch.add(chunk, offset, Math.min(length, room));
      }
      const sent = transport.send(batch);
      if (sent === WOULD_BLOCK) break;
      if (sent < 0) return sent;
      this.#drop(sent);
      total += sent;
      if (sent < batch.bytes) break;
    }
    this.rest();
    return total;
  }

  /** Forgets what is queued. */
  clear(): void {
    this.#drop(this.#unsentBytes);
    this.#chunk?.release();
    this.#chunk = undefined;
  }

  #drop(sent: number): void {
    this.#unsentBytes -= sent;
    let left = sent;
    while (left > 0) {
      const entry = this.#entries[this.#head];
      const part = Math.min(left, entry.length);
      entry.offset += part;
      entry.length -= part;
      left -= part;
      if (entry.length > 0) break;
      entry.chunk.release();
      this.#head += 1;
    }
    if (this.#head === this.#entries.length) {
      this.#entries.length = 0;
      this.#head = 0;
    } else if (this.#head >= COMPACT_MIN) {
      this.#entries.splice(0, this.#head);
      this.#head = 0;
    }
  }

  /** Gives the chunk back where nothing queued or reserved is in it. */
  rest(): void {
    if (this.#unsentBytes === 0 && this.#chunk?.exclusive) {
      this.#chunk.release();
      this.#chunk = undefined;
    }
  }

  /** A large chunk where a small one is too small, or has just been filled. */
  #take(bytes: number, owed: boolean): Chunk | undefined {
    if (bytes > SMALL_CHUNK_BYTES) return this.#pool.takeLarge();
    const busy = this.#chunk !== undefined;
    return (busy ? this.#pool.takeLarge() : undefined) ?? this.#pool.takeSmall(owed || !busy);
  }
}
