/** One change of one block, as the client knows it. */
export interface Change {
  readonly version: number;
  /** The client was told that it is done. */
  acknowledged: boolean;
}

/**
 * The oracle of the crash tests: for every block the versions that it may have after a crash. Version 0 is zeros. What
 * was acknowledged before a flush that completed must be there; of everything after it, any version may.
 */
export class History {
  readonly #changes: Change[][];
  readonly #witnesses = new Set<Set<number>[]>();
  #frozen = false;

  constructor(blocks: number) {
    this.#changes = Array.from({ length: blocks }, () => [{ version: 0, acknowledged: true }]);
  }

  get blocks(): number {
    return this.#changes.length;
  }

  /** The request was sent: from here on a crash may show it. At most one request of a block is under way at a time. */
  issue(lba: number, version: number, acknowledged = true): Change {
    const change = { version, acknowledged };
    this.#changes[lba].push(change);
    for (const versions of this.#witnesses) versions[lba].add(version);
    return change;
  }

  /** The request of this version failed: the block has it, or what it had before. */
  doubt(lba: number, version: number): void {
    for (const change of this.#changes[lba]) if (change.version === version) change.acknowledged = false;
  }

  #lastAcknowledgedAt(lba: number): number {
    return Math.max(
      0,
      this.#changes[lba].findLastIndex((change) => change.acknowledged),
    );
  }

  #lastAcknowledged(lba: number): Change {
    return this.#changes[lba][this.#lastAcknowledgedAt(lba)];
  }

  /** A flush is sent. Returns what to call when it completes. */
  flushing(): () => void {
    const latest = this.#changes.map((_, lba) => this.#lastAcknowledged(lba));
    return () => {
      if (this.#frozen) return;
      latest.forEach((change, lba) => {
        this.durable(lba, change);
      });
    };
  }

  /** This change is on the disk: what came before it can't be seen any more. */
  durable(lba: number, change: Change): void {
    const position = this.#changes[lba].indexOf(change);
    // A later flush may have completed first, and dropped it.
    if (position > 0) this.#changes[lba].splice(0, position);
  }

  /** The crash is now: flushes that complete later promise nothing. */
  freeze(): void {
    this.#frozen = true;
  }

  /** The crash is over: another life begins. */
  thaw(): void {
    this.#frozen = false;
  }

  allowed(lba: number): readonly number[] {
    return this.#changes[lba].map((change) => change.version);
  }

  /** What a read may give without a crash: what was acknowledged last, or what was asked for since. */
  possible(lba: number): readonly number[] {
    const changes = this.#changes[lba];
    return changes.slice(this.#lastAcknowledgedAt(lba)).map(({ version }) => version);
  }

  /** Nothing of this block is under way any more, and it reads as one of the possible versions: it is that one. */
  observe(lba: number, version: number): void {
    const changes = this.#changes[lba];
    const at = this.#lastAcknowledgedAt(lba);
    const seen = changes.findLast((change, i) => i >= at && change.version === version);
    if (seen === undefined) throw new Error(`block ${lba} can not be version ${version}`);
    seen.acknowledged = true;
    changes.splice(at, Infinity, ...changes.slice(at, at + 1).filter((last) => last !== seen), seen);
  }

  /** Notes from now on, until the call of what it returns, which versions each block may have at some moment. */
  witness(): () => Set<number>[] {
    const versions = this.#changes.map((_, lba) => new Set(this.possible(lba)));
    this.#witnesses.add(versions);
    return () => {
      this.#witnesses.delete(versions);
      return versions;
    };
  }

  /** What a read gives while nothing of this block is under way, and no request of it failed. */
  current(lba: number): number {
    return this.#lastAcknowledged(lba).version;
  }

  /** After a crash: the block has this version now, and it is durable. */
  settle(lba: number, version: number): void {
    this.#changes[lba] = [{ version, acknowledged: true }];
  }
}
