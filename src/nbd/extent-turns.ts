/**
 * Looking at maps for BLOCK_STATUS takes time of the event loop, and a request that costs much is answered with few bytes. So
 * all connections together have a number of steps in each turn of the loop; who comes when they are spent has its turn later,
 * first come first served, and then with a number of steps that is worth its while.
 */
import { EXTENT_STEPS_PER_TURN_MAX } from '../base/limits.js';
import type { StepBudget } from '../device/block-device.js';

/** Who finds fewer left waits, rather than having its list cut short after an extent or two. */
const STEPS_MIN = EXTENT_STEPS_PER_TURN_MAX / 4;

export class ExtentTurns {
  readonly #budget: StepBudget = { left: EXTENT_STEPS_PER_TURN_MAX };
  readonly #waiting: (() => void)[] = [];
  #serving = false;
  #scheduled = false;

  /** What is left in this turn; undefined where others come first, or too little is left: `wait`. */
  get steps(): StepBudget | undefined {
    if (this.#budget.left < STEPS_MIN || (this.#waiting.length > 0 && !this.#serving)) return undefined;
    this.#schedule();
    return this.#budget;
  }

  /** Calls `goOn` in a later turn, which must not throw. There may be too little left for it even so: it waits again then. */
  wait(goOn: () => void): void {
    this.#waiting.push(goOn);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.#begin());
  }

  #begin(): void {
    this.#scheduled = false;
    this.#budget.left = EXTENT_STEPS_PER_TURN_MAX;
    this.#serving = true;
    // Each once: who waits again has its next turn behind the others.
    for (let count = this.#waiting.length; count > 0 && this.#budget.left >= STEPS_MIN; count--)
      this.#waiting.shift()?.();
    this.#serving = false;
    if (this.#waiting.length > 0) this.#schedule();
  }
}
