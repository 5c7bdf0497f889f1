/** Watches how a client takes its replies: who waits for it to take more, and whether it still does. */
import { SEND_STALL_SHORT_OF_MEMORY_MS } from '../base/limits.js';

interface Waiter {
  readonly bytesMax: number;
  readonly resolve: () => void;
}

export class SendWatch {
  #waiters: Waiter[] = [];
  readonly #stallMs: number;
  #stalledSince: number;
  #progressed = false;

  constructor(now: number, stallMs: number) {
    this.#stallMs = stallMs;
    this.#stalledSince = now;
  }

  /** Resolves when at most `bytesMax` are unsent, or the connection is closed. */
  whenAtMost(bytesMax: number): Promise<void> {
    return new Promise((resolve) => this.#waiters.push({ bytesMax, resolve }));
  }

  /** After each send, and with 0 after the end. */
  wake(unsentBytes: number): void {
    if (this.#waiters.length === 0) return;
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) {
      if (unsentBytes > waiter.bytesMax) this.#waiters.push(waiter);
      else waiter.resolve();
    }
  }

  /** Some bytes left. Called often, so the clock is read by `isStalled` alone. */
  progress(): void {
    this.#progressed = true;
  }

  /** True where the client has taken nothing of what is queued for too long, which is sooner in need. */
  isStalled(now: number, unsentBytes: number, shortOfMemory: boolean): boolean {
    if (unsentBytes === 0 || this.#progressed) {
      this.#progressed = false;
      this.#stalledSince = now;
      return false;
    }
    const allowedMs = shortOfMemory ? Math.min(this.#stallMs, SEND_STALL_SHORT_OF_MEMORY_MS) : this.#stallMs;
    return now - this.#stalledSince > allowedMs;
  }
}
