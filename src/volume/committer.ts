/**
 * Group commit. A flush that comes while a commit runs can't ride on it, since writes acknowledged in between may be
 * missing from it: it joins the next one, together with everyone else who waits.
 */
export class Committer {
  readonly #commit: () => Promise<void>;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  /** Commits done, for the ratio of flushes to commits. */
  commits = 0;

  constructor(commit: () => Promise<void>) {
    this.#commit = commit;
  }

  /** Resolves when a commit that started after this call is done. */
  flush(): Promise<void> {
    if (this.#next !== undefined) return this.#next;
    if (this.#running === undefined) return this.#start();
    this.#next = this.#running.then(
      () => this.#start(),
      () => this.#start(),
    );
    return this.#next;
  }

  /** Something runs, or waits to run. */
  get isBusy(): boolean {
    return this.#running !== undefined || this.#next !== undefined;
  }

  /** Resolves when nothing runs and nothing waits to run, however it ended. */
  async idle(): Promise<void> {
    while (this.isBusy) {
      await (this.#next ?? this.#running)?.catch(() => undefined);
    }
  }

  #start(): Promise<void> {
    this.#next = undefined;
    this.commits++;
    const running = this.#commit().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }
}
