/**
 * Who waits for memory: those who lack one chunk, and those who lack many at once, in a queue each, first come first served.
 * So nobody who wants little stands behind one who wants much; the pool sees to it that neither takes all from the other.
 */

export interface Waiter {
  /** Tries again what failed for lack of memory: returns 0 where it got on, else how many chunks it lacks now. */
  retry(): number;
}

export class MemoryQueue {
  readonly #one = new Set<Waiter>();
  readonly #many = new Set<Waiter>();
  #served: Waiter | undefined;
  /** Who is being served got something. */
  #granted = false;

  get size(): number {
    return this.#one.size + this.#many.size;
  }

  /** Somebody other than who is being served. */
  get othersWantMany(): boolean {
    return this.#others(this.#many) > 0;
  }

  /** Newcomers come behind those who wait, and so does who has had its turn. */
  mayTake(chunks: number): boolean {
    const first = this.#served !== undefined && !this.#granted && this.#of(chunks).has(this.#served);
    return first || (this.#others(this.#one) === 0 && (chunks === 1 || !this.othersWantMany));
  }

  granted(): void {
    this.#granted = true;
  }

  add(waiter: Waiter, chunks: number): void {
    this.#of(chunks).add(waiter);
  }

  delete(waiter: Waiter): boolean {
    return this.#one.delete(waiter) || this.#many.delete(waiter);
  }

  /** Each gets one grant at a time: who wants more comes again, behind the others. */
  serve(): void {
    let before: number;
    do {
      before = this.#many.size;
      this.#serve(this.#one);
      this.#serve(this.#many);
      // Where somebody wants many, who wants one gets less.
    } while (this.#many.size !== before && this.#one.size > 0);
  }

  #serve(queue: Set<Waiter>): void {
    for (const waiter of queue) {
      this.#served = waiter;
      this.#granted = false;
      const chunks = waiter.retry();
      this.#served = undefined;
      const next = chunks === 0 ? undefined : this.#of(chunks);
      // It needs more than there is, and stays first.
      if (next === queue && !this.#granted) return;
      queue.delete(waiter);
      next?.add(waiter);
    }
  }

  #of(chunks: number): Set<Waiter> {
    return chunks > 1 ? this.#many : this.#one;
  }

  #others(queue: Set<Waiter>): number {
    return queue.size - (this.#served !== undefined && queue.has(this.#served) ? 1 : 0);
  }
}
