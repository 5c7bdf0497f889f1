/** Time as a dependency: below `daemon/` nothing reads the machine's clock by itself. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Unix time, milliseconds. It may step backwards. */
  now(): number;
  /** Milliseconds of a clock that never steps, for measuring spans. */
  monotonic(): number;
  /** Calls `fn` once after `delayMs`. A pending timer does not keep the process alive. */
  setTimeout(fn: () => void, delayMs: number): Timer;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimeout(fn, delayMs) {
    const timer = setTimeout(fn, delayMs);
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};

/** Resolves after `delayMs` of the given clock. */
export function sleep(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => {
    clock.setTimeout(resolve, delayMs);
  });
}

/** Settles as `work` does, or rejects with `late()` where that takes longer than `limitMs` of the given clock. */
export function within<T>(clock: Clock, limitMs: number, work: Promise<T>, late: () => Error): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = clock.setTimeout(() => reject(late()), limitMs);
    const settle = (): void => timer.cancel();
    work.then(resolve, reject).then(settle, settle);
  });
}
