import type { Clock, Timer } from '../../src/base/clock.js';

/** Time that moves when the test says so. */
export class ManualClock implements Clock {
  #now = 1_770_000_000_000;
  #asleepMs = 0;
  readonly #timers = new Set<{ readonly at: number; readonly fn: () => void }>();

  now(): number {
    return this.#now + this.#asleepMs;
  }

  monotonic(): number {
    return this.#now;
  }

  setTimeout(fn: () => void, delayMs: number): Timer {
    const timer = { at: this.#now + delayMs, fn };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  /** The wall clock goes on, monotonic time and timers do not: what a suspended machine sees. */
  sleep(ms: number): void {
    this.#asleepMs += ms;
  }

  /** Fires what is due on the way, in order. */
  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const [next] = [...this.#timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at);
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#now = next.at;
      next.fn();
    }
    this.#now = end;
  }
}
