/**
 * Keys that jobs hold beside those of open volumes: of the chain that is restored or verified, of the base of a backup. They are
 * watched as a volume's are, in the daemon by the same watchdog and settings; where a volume would stop, they are wiped at once, and the job fails. They
 * are when the job is aborted, too: one that hangs in I/O notices that late, or never.
 */
import { onAbort } from '../base/abort.js';
import type { Clock } from '../base/clock.js';
import { SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { KeyProviders } from '../kms/registry.js';
import type { KeyHandle } from '../native/addon.js';
import { checkDeks } from './key-answer.js';
import type { WatchTarget } from './key-watch.js';
import type { Superblock } from './superblock.js';
import { firstState } from './watch-state.js';
import type { Watchdog } from './watchdog.js';

export interface JobControl {
  readonly signal: AbortSignal;
  onProgress(doneBytes: number, totalBytes: number): void;
}

export interface JobKeysOptions {
  readonly watchdog: Watchdog;
  readonly providers: KeyProviders;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface HeldKeys {
  /** As wrapped for the volume `uuid`. */
  readonly deks: Superblock['deks'];
  readonly uuid: Uint8Array;
  /** By DEK id. */
  readonly handles: ReadonlyMap<number, KeyHandle>;
  /** Wipes them. May be called twice. */
  release(): void;
}

export interface GuardedControl extends JobControl {
  /** Has another key wiped with them; at once where they are wiped already. */
  alsoWipe(release: () => void): void;
}

export class JobKeys {
  readonly #options: JobKeysOptions;

  constructor(options: JobKeysOptions) {
    this.#options = options;
  }

  /**
   * Settles as `work` does; KEY_UNAVAILABLE where it failed once the keys were taken away, ESHUTDOWN once the job was aborted.
   * `what` tells the job from others that run; since it has a space in it, it is no volume's name. All keys are wiped in the end.
   */
  async during<T>(
    what: `${string} ${string}`,
    control: JobControl,
    keys: HeldKeys,
    work: (control: GuardedControl) => Promise<T>,
  ): Promise<T> {
    const { watchdog, log } = this.#options;
    const taken = new AbortController();
    const signal = AbortSignal.any([control.signal, taken.signal]);
    const releases = [() => keys.release()];
    const wipe = (): void => {
      for (const release of releases) release();
    };
    let reason: string | undefined;
    const stop = async (why: string): Promise<void> => {
      log.error({ job: what, reason: why }, 'the key is not to be used any more: its keys are wiped');
      reason = why;
      wipe();
      taken.abort();
    };
    if (keys.deks.length > 0) {
      const state = firstState('serving', 'valid', undefined);
      watchdog.follow(what, { epoch: 0, state, target: this.#target(keys, stop) });
    }
    const settled = onAbort(control.signal, () => {
      watchdog.follow(what, undefined); // What is asked about dead keys would be answered with damage.
      wipe();
    });
    try {
      control.signal.throwIfAborted();
      return await work({
        onProgress: (done, total) => control.onProgress(done, total),
        signal,
        alsoWipe: (release) => {
          releases.push(release);
          if (signal.aborted) release();
        },
      });
    } catch (error) {
      if (reason !== undefined)
        throw new SealbdError('KEY_UNAVAILABLE', `${what}: the key was taken away: ${reason}`, {
          cause: error,
        });
      if (control.signal.aborted)
        throw new SealbdError('ESHUTDOWN', `${what}: ended, its keys are wiped`, { cause: error });
      throw error;
    } finally {
      settled();
      watchdog.follow(what, undefined);
      wipe();
    }
  }

  #target(keys: HeldKeys, stop: WatchTarget['stop']): WatchTarget {
    const { providers, clock } = this.#options;
    return {
      ask: () => checkDeks(keys, keys.handles, providers, clock),
      note: () => undefined, // What it says is in the log; a job has no state of its key to show.
      stop,
      open: async () => undefined, // A job that has failed does not go on.
    };
  }
}
