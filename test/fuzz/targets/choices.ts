/** An input as a row of choices. One that ends gives zeros. */
export class Choices {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get ended(): boolean {
    return this.#at >= this.#bytes.length;
  }

  byte(): number {
    return this.#bytes[this.#at++] ?? 0;
  }

  below(limit: number): number {
    return (this.byte() + 256 * this.byte()) % limit;
  }

  word(): number {
    return this.below(65_536) + 65_536 * this.below(65_536);
  }

  one<T>(choices: readonly T[]): T {
    return choices[this.byte() % choices.length];
  }

  bytes(length: number): Uint8Array {
    const out = new Uint8Array(length);
    out.set(this.#bytes.subarray(this.#at, this.#at + length));
    this.#at += length;
    return out;
  }

  float(): number {
    return new DataView(this.bytes(8).buffer).getFloat64(0, true);
  }
}
