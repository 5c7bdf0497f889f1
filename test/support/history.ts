/**
 * The oracle of the crash tests: for every block the versions that it may have after a crash. Version 0 is zeros. What
 * was acknowledged before a flush that completed must be there; of everything after it, any version may.
 */
export class History {
  readonly #versions: number[][];
  /** Versions of each block that flushes have made impossible, so that positions stay comparable. */
  readonly #dropped: number[];
  readonly #doubtful = new Set<string>();
  #frozen = false;

  constructor(blocks: number) {
    this.#versions = Array.from({ length: blocks }, () => [0]);
    this.#dropped = new Array(blocks).fill(0);
  }

  get blocks(): number {
    return this.#versions.length;
  }

  /** The request was sent: from here on a crash may show it. */
  issue(lba: number, version: number): void {
    this.#versions[lba].push(version);
  }

  /** The request of this version failed: the block has it, or what it had before. */
  doubt(lba: number, version: number): void {
    this.#doubtful.add(`${lba}:${version}`);
  }

  /** Position of the last version that was acknowledged. */
  #acknowledged(lba: number): number {
    const versions = this.#versions[lba];
    let last = versions.length - 1;
    while (last > 0 && this.#doubtful.has(`${lba}:${versions[last]}`)) last--;
    return this.#dropped[lba] + last;
  }

  /** A flush is sent when no other change is under way. Returns what to call when it completes. */
  flushing(): () => void {
    const latest = this.#versions.map((_, lba) => this.#acknowledged(lba));
    return () => {
      if (this.#frozen) return;
      latest.forEach((position, lba) => {
        const drop = position - this.#dropped[lba];
        if (drop <= 0) return;
        this.#versions[lba].splice(0, drop);
        this.#dropped[lba] += drop;
      });
    };
  }

  /** The crash is now: flushes that complete later promise nothing. */
  freeze(): void {
    this.#frozen = true;
  }

  allowed(lba: number): readonly number[] {
    return this.#versions[lba];
  }

  /** After a crash: the block has this version now, and it is durable. */
  settle(lba: number, version: number): void {
    this.#versions[lba] = [version];
  }
}
