/** Keys under which volumes are being put at this moment: their superblocks do not name them yet. */
export interface KeyUnderWay {
  readonly volume: string;
  /** A key URI, or what else there is to say about the key. */
  readonly to: string;
}

export class KeysUnderWay {
  readonly #present = new Set<KeyUnderWay>();
  readonly #lists = new Set<Set<KeyUnderWay>>();

  /** Settles as `operation` does, and is known to be under way until then. */
  async during<T>(key: KeyUnderWay, operation: () => Promise<T>): Promise<T> {
    const entry = { ...key };
    this.#present.add(entry);
    for (const list of this.#lists) list.add(entry);
    try {
      return await operation();
    } finally {
      this.#present.delete(entry);
    }
  }

  /** Adds to what `look` finds every key that was under way at some time while it looked. */
  async seenDuring<T>(look: () => Promise<T>): Promise<{ found: T; underWay: KeyUnderWay[] }> {
    const seen = new Set(this.#present);
    this.#lists.add(seen);
    try {
      const found = await look();
      return { found, underWay: [...seen] };
    } finally {
      this.#lists.delete(seen);
    }
  }
}
