/** Done at once (nothing to await), or a promise of it. Hot requests stay on the first way. */
export type MaybePromise<T> = T | Promise<T>;

/**
 * Several pieces of one request, each done at once or later. The result settles only when every piece has: a
 * request that failed must not leave a piece behind that still writes to the caller's memory.
 */
export class Gather {
  #pending: Promise<void>[] | undefined;

  /** Runs a piece; false where it failed at once, and the pieces after it are not worth starting. */
  add(piece: () => MaybePromise<void>): boolean {
    try {
      const result = piece();
      if (result instanceof Promise) this.#wait(result);
      return true;
    } catch (error) {
      this.#wait(Promise.reject(error));
      return false;
    }
  }

  result(): MaybePromise<void> {
    return this.#pending === undefined ? undefined : allDone(this.#pending);
  }

  #wait(piece: Promise<void>): void {
    // Its failure is told by the result; until somebody waits for that, it must not count as unhandled.
    piece.catch(() => undefined);
    this.#pending ??= [];
    this.#pending.push(piece);
  }
}

async function allDone(pieces: readonly Promise<void>[]): Promise<void> {
  for (const piece of await Promise.allSettled(pieces)) if (piece.status === 'rejected') throw piece.reason;
}
