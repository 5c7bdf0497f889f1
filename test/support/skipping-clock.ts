import { type Clock, systemClock, type Timer } from '../../src/base/clock.js';

/** The system's clock, except that a test can make it jump ahead. Timers run in real time. */
export class SkippingClock implements Clock {
  #skippedMs = 0;

  skip(ms: number): void {
    this.#skippedMs += ms;
  }

  now(): number {
    return systemClock.now() + this.#skippedMs;
  }

  monotonic(): number {
    return systemClock.monotonic() + this.#skippedMs;
  }

  setTimeout(fn: () => void, delayMs: number): Timer {
    return systemClock.setTimeout(fn, delayMs);
  }
}
