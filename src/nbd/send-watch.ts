/** Watches how a client takes its replies: who waits for it to take more, and whether it takes them fast enough. */
import {
  SEND_BYTES_SHORT_OF_MEMORY_MIN,
  SEND_SHARE_SHORT_OF_MEMORY_MIN,
  SEND_STALL_SHORT_OF_MEMORY_MS,
} from '../base/limits.js';

interface Waiter {
  readonly bytesMax: number;
  readonly resolve: () => void;
}

/** So much is to be taken, of what is queued, before a time is over; then as much again. */
class Quota {
  #since: number;
  /** Of all bytes taken so far. */
  #goal = 0;

  constructor(now: number) {
    this.#since = now;
  }

  restart(now: number, goal: number): void {
    this.#since = now;
    this.#goal = goal;
  }

  get goal(): number {
    return this.#goal;
  }

  age(now: number): number {
    return now - this.#since;
  }
}

export class SendWatch {
  #waiters: Waiter[] = [];
  readonly #stallMs: number;
  readonly #stallBytes: number;
  readonly #always: Quota;
  readonly #inNeed: Quota;
  #taken = 0;

  constructor(now: number, stallMs: number, bytesPerSecond: number) {
    this.#stallMs = stallMs;
    this.#stallBytes = (bytesPerSecond * stallMs) / 1000;
    this.#always = new Quota(now);
    this.#inNeed = new Quota(now);
  }

  /** Resolves when at most `bytesMax` are pending, or the connection is closed. */
  whenAtMost(bytesMax: number): Promise<void> {
    return new Promise((resolve) => this.#waiters.push({ bytesMax, resolve }));
  }

  /** After each send, and with 0 after the end. */
  wake(pendingBytes: number): void {
    if (this.#waiters.length === 0) return;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) {
      if (pendingBytes > waiter.bytesMax) this.#waiters.push(waiter);
      else waiter.resolve();
    }
  }

  /** Some bytes left. Called often, so the clock is read by `isSlow` alone. */
  progress(bytes: number): void {
    this.#taken += bytes;
  }

  /** True where the client has taken too little of what is queued for too long, which is sooner, and more, in need. */
  isSlow(now: number, unsentBytes: number, shortOfMemory: boolean): boolean {
    const inNeedMs = Math.min(this.#stallMs, SEND_STALL_SHORT_OF_MEMORY_MS);
    const share = Math.max(SEND_BYTES_SHORT_OF_MEMORY_MIN, unsentBytes * SEND_SHARE_SHORT_OF_MEMORY_MIN);
    if (!shortOfMemory) this.#inNeed.restart(now, this.#taken);
    const slow = this.#isBehind(this.#always, now, unsentBytes, this.#stallBytes, this.#stallMs);
    return this.#isBehind(this.#inNeed, now, unsentBytes, share, inNeedMs) || slow;
  }

  /** Who takes all that there is takes enough. */
  #isBehind(quota: Quota, now: number, unsentBytes: number, bytes: number, spanMs: number): boolean {
    if (unsentBytes === 0 || this.#taken >= quota.goal) {
      quota.restart(now, this.#taken + Math.max(1, Math.min(unsentBytes, bytes)));
      return false;
    }
    return quota.age(now) > spanMs;
  }
}
