/**
 * The memory of the server: chunks of arenas, counted by reference, taken once and used again. Its two maxima
 * are the bound on what all clients together can make the server hold.
 *
 * A chunk is small (a slice of an arena) or large (a whole arena). Whoever holds a chunk may hand out
 * references: a write under way pins the chunk that its payload arrived in.
 */
import {
  ARENA_CHUNK_BYTES,
  BYTES_IN_FLIGHT_TOTAL_MAX,
  INPUT_SHARE_MAX,
  LARGE_CHUNKS_IDLE_MAX,
  LENT_SHARE_MAX,
  ONE_CHUNK_SHARE,
  SMALL_CHUNK_BYTES,
  SMALL_CHUNKS_MAX,
} from '../base/limits.js';
import { addon } from '../native/addon.js';
import { Arena } from '../native/arena.js';
import { MemoryQueue, type Waiter } from './memory-queue.js';

export class Chunk {
  readonly arena: Arena;
  /** The chunk is [start, end) of the arena. */
  readonly start: number;
  readonly end: number;
  readonly #pool: ChunkPool;
  #references = 0;
  /** For the pool alone: how often it had been wiped when this chunk was last taken; undefined while it is clean. */
  usedAt: number | undefined;
  /** The same: taken with others at once. */
  ofMany = false;
  /** The same: for what a client sends. */
  ofInput = false;

  constructor(pool: ChunkPool, arena: Arena, start: number, end: number) {
    this.#pool = pool;
    this.arena = arena;
    this.start = start;
    this.end = end;
  }

  get sizeBytes(): number {
    return this.end - this.start;
  }

  get large(): boolean {
    return this.sizeBytes > SMALL_CHUNK_BYTES;
  }

  /** True where the holder is the only one. */
  get exclusive(): boolean {
    return this.#references === 1;
  }

  retain(): void {
    this.#references += 1;
  }

  release(): void {
    if (this.#references < 1) throw new Error('a chunk was released more often than retained');
    this.#references -= 1;
    if (this.#references === 0) this.#pool.give(this);
  }
}

export interface ChunkPoolStats {
  readonly largeUsed: number;
  readonly smallUsed: number;
  readonly bytes: number;
  /** Beside these, but within the same bound. */
  readonly lentBytes: number;
  readonly waiting: number;
}

export class ChunkPool {
  readonly #smallArenas: Arena[] = [];
  readonly #smallFree: Chunk[] = [];
  readonly #largeFree: Chunk[] = [];
  readonly #queue = new MemoryQueue();
  /** For large chunks, and what is lent. */
  readonly #largeBytesMax: number;
  /** Of these, for who takes one chunk at a time. */
  readonly #oneBytesMin: number;
  readonly #inputChunksMax: number;
  #lentBytes = 0;
  #arenas = 0;
  #smallUsed = 0;
  #largeUsed = 0;
  /** Of these, taken with others at once. */
  #manyUsed = 0;
  /** The same, for what clients send. */
  #inputUsed = 0;
  /** Most large chunks in use at once since the last `trim`. */
  #largePeak = 0;
  #wakeScheduled = false;
  #closed = false;
  /** Calls of `wipeUsed` so far. */
  #wipes = 0;

  /** `bytesMax`, without what small chunks may take beside, is for large ones. */
  constructor(bytesMax: number = BYTES_IN_FLIGHT_TOTAL_MAX) {
    this.#largeBytesMax = bytesMax - SMALL_CHUNKS_MAX * SMALL_CHUNK_BYTES;
    const chunks = Math.floor((this.#largeBytesMax * ONE_CHUNK_SHARE) / ARENA_CHUNK_BYTES);
    this.#oneBytesMin = Math.max(1, chunks) * ARENA_CHUNK_BYTES;
    this.#inputChunksMax = Math.floor((this.#largeBytesMax * INPUT_SHARE_MAX) / ARENA_CHUNK_BYTES);
  }

  /**
   * One reference to a small chunk. `owed` serves a caller that holds nothing else or must answer: it gets one
   * past the maximum and ahead of those who wait.
   */
  takeSmall(owed: boolean): Chunk | undefined {
    if (!owed && (this.#smallUsed >= SMALL_CHUNKS_MAX || !this.#queue.mayTake(1))) return undefined;
    if (this.#smallFree.length === 0) this.#carve();
    const chunk = this.#smallFree.pop();
    if (chunk === undefined) throw new Error('carving gave no chunk');
    this.#smallUsed += 1;
    if (!owed) this.#queue.granted();
    chunk.usedAt = this.#wipes;
    chunk.retain();
    return chunk;
  }

  takeLarge(): Chunk | undefined {
    return this.takeMany(1)?.[0];
  }

  /**
   * One for what a client sends, who makes do with a small one. Where such chunks could be all that there are, clients would wait
   * for each other: each for the memory that its next READ needs, with a WRITE behind that in the chunk.
   */
  takeInput(): Chunk | undefined {
    if (this.#inputUsed >= this.#inputChunksMax) return undefined;
    const chunk = this.takeLarge();
    if (chunk === undefined) return undefined;
    chunk.ofInput = true;
    this.#inputUsed += 1;
    return chunk;
  }

  /** `count` large chunks, or none. */
  takeMany(count: number): Chunk[] | undefined {
    if (!this.#queue.mayTake(count) || !this.#hasRoom(count)) return undefined;
    const chunks: Chunk[] = [];
    try {
      while (chunks.length < count) chunks.push(this.#grantLarge(count > 1));
      return chunks;
    } catch (error) {
      for (const chunk of chunks) chunk.release();
      throw error;
    }
  }

  /**
   * Who wants many leaves a part to those who want one, and these keep to it while somebody waits for many: so there comes the
   * time when there are as many, and meanwhile small requests go on. Input counts with neither: it has its own part, and stays until
   * the requests before it are served.
   */
  #hasRoom(count: number): boolean {
    const bytes = count * ARENA_CHUNK_BYTES;
    const many = this.#manyUsed * ARENA_CHUNK_BYTES;
    const input = this.#inputUsed * ARENA_CHUNK_BYTES;
    const one = this.#largeUsed * ARENA_CHUNK_BYTES - many - input;
    if (count > 1) {
      const others = this.#lentBytes + input + Math.max(one, this.#oneBytesMin);
      return many + bytes + others <= this.#largeBytesMax;
    }
    if (this.#queue.othersWantMany && one + bytes > this.#oneBytesMin) return false;
    return this.#largeBytes + bytes <= this.#largeBytesMax;
  }

  #grantLarge(ofMany: boolean): Chunk {
    const chunk = this.#largeFree.pop() ?? this.#mapLarge();
    this.#largeUsed += 1;
    chunk.ofMany = ofMany;
    if (ofMany) this.#manyUsed += 1;
    this.#largePeak = Math.max(this.#largePeak, this.#largeUsed);
    this.#queue.granted();
    chunk.usedAt = this.#wipes;
    chunk.retain();
    return chunk;
  }

  /**
   * For who was refused `chunks` large chunks at once (or a small one: 1). It is asked to try again when memory has come back,
   * until it got on.
   */
  wait(waiter: Waiter, chunks: number): void {
    this.#queue.add(waiter, chunks);
  }

  /** It does not wait any more. */
  forget(waiter: Waiter): void {
    if (this.#queue.delete(waiter)) this.#wakeSoon();
  }

  get short(): boolean {
    return this.#queue.size > 0;
  }

  /** For Chunk alone: the last reference is gone. */
  give(chunk: Chunk): void {
    if (chunk.usedAt !== this.#wipes) wipe(chunk);
    if (chunk.large) {
      this.#largeUsed -= 1;
      if (chunk.ofMany) this.#manyUsed -= 1;
      if (chunk.ofInput) this.#inputUsed -= 1;
      chunk.ofInput = false;
      const keep = !this.#closed && this.#largeFree.length < LARGE_CHUNKS_IDLE_MAX;
      if (keep) this.#largeFree.push(chunk);
      else this.#unmap(chunk.arena);
    } else {
      this.#smallUsed -= 1;
      this.#smallFree.push(chunk);
      if (this.#closed) this.#unmapSmall();
    }
    this.#wakeSoon();
  }

  /** Counts memory that is no chunk, such as what a library holds of a connection's bytes; less than 0 for what came back. */
  lend(bytes: number): void {
    this.#lentBytes += bytes;
    if (bytes < 0) this.#wakeSoon();
  }

  /** False where whoever has such memory should make do with little. */
  get mayLend(): boolean {
    return (
      this.#lentBytes < this.#largeBytesMax * LENT_SHARE_MAX &&
      this.#largeBytes < this.#largeBytesMax &&
      !this.short
    );
  }

  get #largeBytes(): number {
    return this.#largeUsed * ARENA_CHUNK_BYTES + this.#lentBytes;
  }

  #wakeSoon(): void {
    if (!this.short || this.#wakeScheduled) return;
    this.#wakeScheduled = true;
    queueMicrotask(() => {
      this.#wakeScheduled = false;
      this.#queue.serve();
    });
  }

  /** Gives the kernel back what was not in use since the last call. Memory that is taken again is slower the first time. */
  trim(): void {
    while (this.#largeUsed + this.#largeFree.length > this.#largePeak) {
      const chunk = this.#largeFree.shift();
      if (chunk === undefined) break;
      this.#unmap(chunk.arena);
    }
    this.#largePeak = this.#largeUsed;
    this.#unmapSmall();
  }

  /** Overwrites what requests left behind: at once in memory that nobody uses now, in the rest as it is given back. */
  wipeUsed(): void {
    this.#wipes += 1;
    for (const chunk of [...this.#smallFree, ...this.#largeFree]) if (chunk.usedAt !== undefined) wipe(chunk);
  }

  stats(): ChunkPoolStats {
    return {
      largeUsed: this.#largeUsed,
      smallUsed: this.#smallUsed,
      bytes: this.#arenas * ARENA_CHUNK_BYTES,
      lentBytes: this.#lentBytes,
      waiting: this.#queue.size,
    };
  }

  /** Wipes and frees everything; chunks still held are freed as they come back. */
  close(): void {
    this.#closed = true;
    for (const chunk of this.#largeFree.splice(0)) this.#unmap(chunk.arena);
    this.#unmapSmall();
  }

  #carve(): void {
    const arena = this.#map();
    this.#smallArenas.push(arena);
    for (let start = 0; start < arena.sizeBytes; start += SMALL_CHUNK_BYTES) {
      this.#smallFree.push(new Chunk(this, arena, start, start + SMALL_CHUNK_BYTES));
    }
  }

  #mapLarge(): Chunk {
    const arena = this.#map();
    return new Chunk(this, arena, 0, arena.sizeBytes);
  }

  #map(): Arena {
    const arena = new Arena(ARENA_CHUNK_BYTES);
    this.#arenas += 1;
    return arena;
  }

  #unmap(arena: Arena): void {
    this.#arenas -= 1;
    arena.free();
  }

  /** Small chunks share arenas, so these go together, when no slice is held any more. */
  #unmapSmall(): void {
    if (this.#smallUsed > 0) return;
    this.#smallFree.length = 0;
    for (const arena of this.#smallArenas.splice(0)) this.#unmap(arena);
  }
}

function wipe(chunk: Chunk): void {
  addon.wipe(chunk.arena.bytes.subarray(chunk.start, chunk.end));
  chunk.usedAt = undefined;
}
