/** Choices of a seeded generator. */

export const int = (random: () => number, below: number): number => Math.floor(random() * below);

/** Gives each of its items once, in random order, then each once again, and so on. */
export class Deck<T> {
  readonly #items: readonly T[];
  readonly #random: () => number;
  #left: T[] = [];

  constructor(items: readonly T[], random: () => number) {
    this.#items = items;
    this.#random = random;
  }

  next(): T {
    if (this.#left.length === 0) this.#left = [...this.#items];
    const [item] = this.#left.splice(int(this.#random, this.#left.length), 1);
    return item;
  }
}
