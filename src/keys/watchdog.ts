/**
 * The key watchdog: one watch for each volume whose key is in use, or was taken away.
 *
 * Timers and the monotonic clock stand still while the machine sleeps or its VM is suspended. So where the wall clock gets
 * ahead of the monotonic one by more than an interval, every key is asked for at once. That the wall clock was set has the
 * same effect, and does no harm.
 */
import type { Timer } from '../base/clock.js';
import { SLEEP_LOOK_MS } from '../base/limits.js';
import { KeyWatch, type WatchDependencies, type WatchTarget, type WatchTimes } from './key-watch.js';
import type { WatchState } from './watch-state.js';

export interface WatchSubject {
  /** Changes whenever the volume is opened or stopped: what is known about its key then begins anew. */
  readonly epoch: number;
  readonly state: WatchState;
  readonly target: WatchTarget;
}

export class Watchdog {
  readonly #dependencies: WatchDependencies;
  readonly #watches = new Map<string, { readonly epoch: number; readonly watch: KeyWatch }>();
  /** Wall clock less monotonic clock, at the last look. */
  #ahead: number;
  #look: Timer;
  #closed = false;

  constructor(dependencies: WatchDependencies) {
    this.#dependencies = dependencies;
    this.#ahead = this.#aheadNow();
    this.#look = this.#lookLater();
  }

  /** Watches `subject` from now on, or nothing under this name. Without effect where its epoch is watched already. */
  follow(name: string, subject: WatchSubject | undefined): void {
    const present = this.#watches.get(name);
    if (this.#closed || (present !== undefined && present.epoch === subject?.epoch)) return;
    present?.watch.end();
    this.#watches.delete(name);
    if (subject === undefined) return;
    const dependencies = { ...this.#dependencies, log: this.#dependencies.log.child({ volume: name }) };
    const watch = new KeyWatch(subject.target, subject.state, dependencies);
    this.#watches.set(name, { epoch: subject.epoch, watch });
  }

  watches(name: string): boolean {
    return this.#watches.has(name);
  }

  /**
   * Checks now, on demand; resolves when what follows was done (a stop may take its deadline). Not to be called from
   * within an operation on the volume: what follows may have to wait for that.
   */
  async check(name: string): Promise<void> {
    await this.#watches.get(name)?.watch.check();
  }

  times(name: string): WatchTimes | undefined {
    return this.#watches.get(name)?.watch.times();
  }

  #aheadNow(): number {
    const { clock } = this.#dependencies;
    return clock.now() - clock.monotonic();
  }

  #lookLater(): Timer {
    return this.#dependencies.clock.setTimeout(() => {
      const asleep = this.#aheadNow() - this.#ahead;
      this.#ahead += asleep;
      this.#look = this.#lookLater();
      if (asleep <= this.#dependencies.policy.intervalMs) return;
      this.#dependencies.log.warn(
        { asleepMs: Math.round(asleep) },
        'time passed unseen: asking for every key',
      );
      for (const { watch } of this.#watches.values()) void watch.check();
    }, SLEEP_LOOK_MS);
  }

  close(): void {
    this.#closed = true;
    this.#look.cancel();
    for (const { watch } of this.#watches.values()) watch.end();
    this.#watches.clear();
  }
}
