/**
 * The operator's alert hook: a program that gets each event as one JSON line on stdin. It is started by its path
 * alone, without a shell or arguments, one at a time and in order, and is killed with its children when it takes too
 * long. It gets no more of the environment than it needs: the daemon's own may hold a token.
 */
import { spawn } from 'node:child_process';
import type { Clock } from '../base/clock.js';
import { errnoOf, messageOf, SealbdError } from '../base/errors.js';
import { HOOK_QUEUE_MAX } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { VolumeEvent } from './volume-events.js';

const ENVIRONMENT = ['PATH', 'HOME', 'LANG', 'TZ'];

export interface EventHookOptions {
  readonly path: string;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly log: Logger;
}

export class EventHook {
  readonly #options: EventHookOptions;
  #queued = 0;
  #tail: Promise<void> = Promise.resolve();

  constructor(options: EventHookOptions) {
    this.#options = options;
  }

  send(event: VolumeEvent): void {
    const { path, clock, log } = this.#options;
    const fields = { hook: path, event: event.event, volume: event.volume };
    if (this.#queued >= HOOK_QUEUE_MAX) {
      log.error(fields, 'too many events wait for the hook; this one is not sent');
      return;
    }
    const line = `${JSON.stringify({ time: new Date(clock.now()).toISOString(), ...event })}\n`;
    this.#queued += 1;
    this.#tail = this.#tail
      .then(() => run(this.#options, line))
      .catch((error) => log.error({ ...fields, reason: messageOf(error) }, 'the hook failed'))
      .finally(() => {
        this.#queued -= 1;
      });
  }

  /** Waits for what was sent, for as long as one run may take. */
  async close(): Promise<void> {
    const { clock, timeoutMs } = this.#options;
    const late = new Promise<void>((resolve) => {
      clock.setTimeout(resolve, timeoutMs);
    });
    await Promise.race([this.#tail, late]);
  }
}

function run({ path, timeoutMs, clock }: EventHookOptions, line: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const env = Object.fromEntries(ENVIRONMENT.map((name) => [name, process.env[name]]));
    const child = spawn(path, [], { env, detached: true, shell: false, stdio: ['pipe', 'ignore', 'ignore'] });
    let late = false;
    const timer = clock.setTimeout(() => {
      late = true;
      if (child.pid !== undefined) killGroup(child.pid);
    }, timeoutMs);
    child.once('error', (error) => {
      timer.cancel();
      reject(error);
    });
    child.once('exit', (code, signal) => {
      timer.cancel();
      if (code === 0) resolve();
      else if (late) reject(new SealbdError('FAILED', `it was killed after ${timeoutMs} ms`));
      else reject(new SealbdError('FAILED', `it ended with ${code ?? signal}`));
    });
    // A hook that does not read its input says by its exit code whether it worked.
    child.stdin.on('error', () => undefined);
    child.stdin.end(line);
  });
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if (errnoOf(error) !== 'ESRCH') throw error;
  }
}
