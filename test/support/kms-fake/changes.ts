/** Changes that take effect later, as those of an eventually consistent service do. */

/** From when on a change shows; at once where neither is given. The later of the two counts. */
export interface Lag {
  /** So many more requests still see the old state. */
  readonly afterRequests?: number | undefined;
  readonly afterMs?: number | undefined;
}

interface Pending {
  requestsLeft: number;
  readonly dueMs: number;
  readonly apply: () => void;
}

export class Changes {
  /** Of changes that clients make through the API. */
  clientLag: Lag = {};
  readonly #now: () => number;
  #pending: Pending[] = [];

  constructor(now: () => number) {
    this.#now = now;
  }

  schedule(apply: () => void, lag: Lag): void {
    if (!lag.afterRequests && !lag.afterMs) {
      apply();
      return;
    }
    this.#pending.push({
      requestsLeft: lag.afterRequests ?? 0,
      dueMs: this.#now() + (lag.afterMs ?? 0),
      apply,
    });
  }

  /** Called as a request arrives: what is due takes effect, the rest has one request less to wait. */
  requestArrives(): void {
    const now = this.#now();
    const due = this.#pending.filter((change) => change.requestsLeft === 0 && now >= change.dueMs);
    this.#pending = this.#pending.filter((change) => !due.includes(change));
    for (const change of this.#pending) change.requestsLeft = Math.max(0, change.requestsLeft - 1);
    for (const change of due) change.apply();
  }

  /** Everything takes effect now. */
  settle(): void {
    const due = this.#pending;
    this.#pending = [];
    for (const change of due) change.apply();
  }
}
