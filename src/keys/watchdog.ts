/** The key watchdog: one watch for each volume whose key is in use, or was taken away. */
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
  #closed = false;

  constructor(dependencies: WatchDependencies) {
    this.#dependencies = dependencies;
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

  close(): void {
    this.#closed = true;
    for (const { watch } of this.#watches.values()) watch.end();
    this.#watches.clear();
  }
}
