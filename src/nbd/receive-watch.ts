/** Watches that a client goes on with what it began, and perhaps that it asks for something at all. */
export class ReceiveWatch {
  #since: number;
  #progressed = false;

  constructor(now: number) {
    this.#since = now;
  }

  /** Some bytes came. Called often, so the clock is read by `silence` alone. */
  progress(): void {
    this.#progressed = true;
  }

  /** For how long nothing came, counted while the client is `awaited`: not while it waits for us. */
  silence(now: number, awaited: boolean): number {
    if (this.#progressed || !awaited) {
      this.#progressed = false;
      this.#since = now;
    }
    return now - this.#since;
  }
}
