/**
 * Keys that jobs hold beside those of open volumes: of the chain that is restored, of the base of a backup. They are watched as a
 * volume's are, by the same watchdog and settings; where a volume would stop, they are wiped at once, and the job fails.
 */
import type { Clock } from '../base/clock.js';
import { SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { checkDeks } from '../keys/key-answer.js';
import type { WatchTarget } from '../keys/key-watch.js';
import type { Superblock } from '../keys/superblock.js';
import { firstState } from '../keys/watch-state.js';
import type { Watchdog } from '../keys/watchdog.js';
import type { KeyProviders } from '../kms/registry.js';
import type { KeyHandle } from '../native/addon.js';
import type { JobControl } from './jobs.js';

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
  /** Has another key wiped with them. */
  alsoWipe(release: () => void): void;
}

export class JobKeys {
  readonly #options: JobKeysOptions;

  constructor(options: JobKeysOptions) {
    this.#options = options;
  }

  /**
   * Settles as `work` does; KEY_UNAVAILABLE where it failed once the keys were taken away. `what` tells the job from others that
   * run; since it has a space in it, it is no volume's name. All keys are wiped in the end.
   */
  async during<T>(
    what: `${string} ${string}`,
    control: JobControl,
    keys: HeldKeys,
    work: (control: GuardedControl) => Promise<T>,
  ): Promise<T> {
    const { watchdog, log } = this.#options;
    const taken = new AbortController();
    const releases = [() => keys.release()];
    let reason: string | undefined;
    const stop = async (why: string): Promise<void> => {
      log.error({ job: what, reason: why }, 'the key is not to be used any more: its keys are wiped');
      reason = why;
      for (const release of releases) release();
      taken.abort();
    };
    if (keys.deks.length > 0) {
      const state = firstState('serving', 'valid', undefined);
      watchdog.follow(what, { epoch: 0, state, target: this.#target(keys, stop) });
    }
    try {
      return await work({
        onProgress: (done, total) => control.onProgress(done, total),
        signal: AbortSignal.any([control.signal, taken.signal]),
        alsoWipe: (release) => releases.push(release),
      });
    } catch (error) {
      if (reason === undefined) throw error;
      throw new SealbdError('KEY_UNAVAILABLE', `${what}: the key was taken away: ${reason}`, {
        cause: error,
      });
    } finally {
      watchdog.follow(what, undefined);
      keys.release();
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
