import type { Clock, Timer } from '../base/clock.js';
import { ARENA_CHUNK_BYTES, SLOT_BYTES } from '../base/limits.js';
import { Arena } from '../native/arena.js';

export const BUFFER_SLOTS = Math.floor(ARENA_CHUNK_BYTES / SLOT_BYTES);

/** Sealed slots on their way to a segment file. It holds ciphertext only. */
export class AppendBuffer {
  readonly arena = new Arena(ARENA_CHUNK_BYTES);
  /** Position in the segment of its first slot. */
  firstPosition = 0;
  /** Slots that it may take. */
  capacity = 0;
  /** Slots spent. */
  used = 0;
  /** Slots that reached the kernel. */
  written = 0;
  /** Pool jobs that are still sealing slots of this buffer. */
  readonly sealing = new Set<Promise<void>>();
  /** Why a slot of this buffer holds no ciphertext, where one could not be sealed. */
  unsealed: unknown;
  /** Pool jobs that still read slots of this buffer. */
  readonly reading = new Set<Promise<unknown>>();
  /** Changes with every use: what was queued for an earlier use must not touch this one. */
  use = 0;

  start(firstPosition: number, capacity: number): void {
    this.use++;
    this.firstPosition = firstPosition;
    this.capacity = Math.min(capacity, BUFFER_SLOTS);
    this.used = 0;
    this.written = 0;
    this.unsealed = undefined;
  }

  holds(position: number): boolean {
    return position >= this.firstPosition && position < this.firstPosition + this.used;
  }

  get endPosition(): number {
    return this.firstPosition + this.used;
  }

  offsetOf(position: number): number {
    return (position - this.firstPosition) * SLOT_BYTES;
  }
}

/** How often the memory of buffers that were not needed meanwhile is given back. */
const TRIM_MS = 2000;

/** A bounded set of buffers, made on demand and reused: memory that is touched for the first time is slow. */
export class AppendBufferPool {
  readonly #max: number;
  readonly #clock: Clock;
  readonly #idle: AppendBuffer[] = [];
  readonly #waiters: (() => void)[] = [];
  #made = 0;
  /** Most buffers in use at once since the last trimming. */
  #peak = 0;
  #trimming: Timer | undefined;

  constructor(max: number, clock: Clock) {
    this.#max = max;
    this.#clock = clock;
  }

  take(): AppendBuffer | undefined {
    const buffer = this.#idle.pop() ?? this.#make();
    this.#peak = Math.max(this.#peak, this.#used);
    return buffer;
  }

  #make(): AppendBuffer | undefined {
    if (this.#made >= this.#max) return undefined;
    const buffer = new AppendBuffer();
    this.#made++;
    this.#trimLater();
    return buffer;
  }

  release(buffer: AppendBuffer): void {
    this.#idle.push(buffer);
    this.wakeAll();
  }

  /** No buffer can be taken now, though there is more than one. */
  get atLast(): boolean {
    return this.#max > 1 && !this.#some;
  }

  get #used(): number {
    return this.#made - this.#idle.length;
  }

  get #some(): boolean {
    return this.#idle.length > 0 || this.#made < this.#max;
  }

  /** Resolves when a buffer may have become free. */
  whenFree(): Promise<void> {
    if (this.#some) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  /** Lets everybody who waits look again, for instance because the volume failed. */
  wakeAll(): void {
    for (const wake of this.#waiters.splice(0)) wake();
  }

  /** Gives back the memory of idle buffers. */
  freeIdle(): void {
    this.#trimming?.cancel();
    this.#trimming = undefined;
    this.#keep(0);
  }

  #trimLater(): void {
    this.#trimming ??= this.#clock.setTimeout(() => {
      this.#trimming = undefined;
      this.#keep(this.#peak);
      this.#peak = this.#used;
      if (this.#made > 0) this.#trimLater();
    }, TRIM_MS);
  }

  #keep(buffers: number): void {
    while (this.#made > buffers) {
      const buffer = this.#idle.shift();
      if (buffer === undefined) return;
      buffer.arena.free();
      this.#made--;
    }
  }
}
