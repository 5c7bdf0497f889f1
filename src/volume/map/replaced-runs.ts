export type OnReplaced = (slot: number, blocks: number) => void;

/** Reports slot addresses that lost their reference, joined to runs as far as they come in order. */
export class ReplacedRuns {
  /** Blocks reported since `begin`. */
  total = 0;
  #slot = 0;
  #blocks = 0;
  #report: OnReplaced = ignore;

  begin(report: OnReplaced): void {
    this.total = 0;
    this.#blocks = 0;
    this.#report = report;
  }

  add(slot: number, blocks: number): void {
    this.total += blocks;
    if (this.#blocks !== 0 && slot === this.#slot + this.#blocks) {
      this.#blocks += blocks;
      return;
    }
    if (this.#blocks !== 0) this.#report(this.#slot, this.#blocks);
    this.#slot = slot;
    this.#blocks = blocks;
  }

  end(): void {
    const report = this.#report;
    this.#report = ignore;
    if (this.#blocks !== 0) report(this.#slot, this.#blocks);
  }
}

function ignore(): void {}
