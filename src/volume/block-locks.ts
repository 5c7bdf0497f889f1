/**
 * Locks on single blocks, for the read-modify-write of requests that cover a block in part. Aligned requests hold no
 * lock; they only wait for the holders in their range. Nearly always nobody holds one.
 */
export class BlockLocks {
  readonly #held = new Map<number, Promise<void>>();

  /** A promise to wait for if some block of the range is locked. */
  conflict(lba: number, blocks: number): Promise<void> | undefined {
    if (this.#held.size === 0) return undefined;
    for (const [held, until] of this.#held) {
      if (held >= lba && held < lba + blocks) return until;
    }
    return undefined;
  }

  /** Locks one block, which must be free (see `conflict`), until `until` settles. */
  hold(lba: number, until: Promise<unknown>): void {
    const released = until.then(
      () => undefined,
      () => undefined, // The owner of the request sees the error; a waiter only wants its turn.
    );
    const done = released.then(() => {
      this.#held.delete(lba);
    });
    this.#held.set(lba, done);
  }
}
