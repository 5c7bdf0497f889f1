/** Watches the key of one volume: asks, lets watch-state.ts decide, has it done, and sets the time of the next check. */
import type { Clock, Timer } from '../base/clock.js';
import { messageOf } from '../base/errors.js';
import { KEY_RETRY_MIN_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { RandomSource } from '../base/random.js';
import { answerOf, type KeyAnswer } from './key-answer.js';
import { delayToNext, graceEndsAt, next, type WatchPolicy, type WatchState } from './watch-state.js';

/** What the watchdog watches. The methods that change a volume do nothing where it was stopped or opened since. */
export interface WatchTarget {
  ask(): Promise<KeyAnswer>;
  /** The state of the key changed, or was confirmed. */
  note(state: WatchState): void;
  /** Refuse requests, drain, sync, checkpoint, wipe the keys. */
  stop(reason: string): Promise<void>;
  open(): Promise<void>;
}

export interface WatchDependencies {
  readonly policy: WatchPolicy;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Logger;
}

/** Unix ms. */
export interface WatchTimes {
  readonly nextCheckAt: number;
  /** Undefined where no countdown runs. */
  readonly graceEndsAt: number | undefined;
}

export class KeyWatch {
  readonly #target: WatchTarget;
  readonly #dependencies: WatchDependencies;
  #state: WatchState;
  #timer: Timer | undefined;
  #dueAt = 0;
  #checks: Promise<void> = Promise.resolve();
  #ended = false;

  /** The volume was opened, or failed to, just now: the first check is due after an interval. */
  constructor(target: WatchTarget, state: WatchState, dependencies: WatchDependencies) {
    this.#target = target;
    this.#state = state;
    this.#dependencies = dependencies;
    this.#schedule();
  }

  times(): WatchTimes {
    const { clock, policy } = this.#dependencies;
    const unix = (monotonic: number): number => clock.now() + monotonic - clock.monotonic();
    const end = graceEndsAt(this.#state, policy);
    return { nextCheckAt: unix(this.#dueAt), graceEndsAt: end === undefined ? undefined : unix(end) };
  }

  /** Checks now and resolves when what follows from it was done. A check under way is not taken for a new one. */
  check(): Promise<void> {
    this.#checks = this.#checks.then(() => this.#check());
    return this.#checks;
  }

  /** No check begins any more, and the answer of one under way counts for nothing. */
  end(): void {
    this.#ended = true;
    this.#timer?.cancel();
  }

  async #check(): Promise<void> {
    if (this.#ended) return;
    const { clock, policy, log } = this.#dependencies;
    this.#timer?.cancel();
    this.#dueAt = clock.monotonic();
    const answer = await this.#target.ask().catch(answerOf);
    if (this.#ended) return;
    const before = this.#state;
    const { state, action } = next(before, answer, clock.monotonic(), policy);
    this.#state = state;
    this.#report(before);
    this.#target.note(state);
    let delayMin = 0;
    try {
      if (action === 'stop') await this.#target.stop(state.reason ?? '');
      if (action === 'open') await this.#target.open();
    } catch (error) {
      log.error({ action, reason: messageOf(error) }, 'the key watchdog could not do what it had to');
      // The volume is as it was, and what had to be done is still to be done.
      this.#state = { ...state, phase: before.phase };
      delayMin = KEY_RETRY_MIN_MS;
    }
    if (!this.#ended) this.#schedule(delayMin);
  }

  #schedule(delayMin = 0): void {
    const { clock, policy, random } = this.#dependencies;
    const now = clock.monotonic();
    const delay = Math.max(delayMin, delayToNext(this.#state, now, policy, uniform(random)));
    this.#dueAt = now + delay;
    this.#timer?.cancel();
    this.#timer = clock.setTimeout(() => void this.check(), delay);
  }

  #report(before: WatchState): void {
    const { log } = this.#dependencies;
    const { key, last, reason } = this.#state;
    if (key === before.key && last === before.last) {
      log.debug({ state: key, answer: last, reason }, 'checked the key');
      return;
    }
    const end = this.times().graceEndsAt;
    const fields = {
      ...{ state: key, answer: last, reason },
      graceEndsAt: end === undefined ? undefined : new Date(end).toISOString(),
    };
    if (last === 'valid') log.info(fields, 'the key is valid again');
    else if (last === 'unreachable') log.warn(fields, 'the key service cannot be reached');
    else if (last === 'refused') log.warn(fields, 'the key service refuses the key');
    else log.error(fields, 'the stored wrapped key is damaged; a volume that is open goes on');
  }
}

/** In [0, 1). */
function uniform(random: RandomSource): number {
  const bytes = random.fill(new Uint8Array(4));
  return new DataView(bytes.buffer).getUint32(0) / 2 ** 32;
}
