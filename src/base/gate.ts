/** Lets so many pieces of work go on at once; the others wait for their turn, first come first served. */
export interface Turns {
  /** `work` must not ask for another turn: it would wait for itself. */
  run<T>(work: () => Promise<T>): Promise<T>;
}

export class Gate implements Turns {
  readonly #waiting: (() => void)[] = [];
  #free: number;

  constructor(places: number) {
    this.#free = places;
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}
