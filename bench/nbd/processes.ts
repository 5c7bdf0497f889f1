/** Child processes that never outlive the benchmark, however it ends. */
import { type ChildProcess, spawn } from 'node:child_process';

const STOP_TIMEOUT_MS = 20_000;

export interface Finished {
  readonly stdout: string;
  readonly stderr: string;
}

/** Every child under way. Signals that end this process end them first. */
export class Programs {
  readonly #children = new Set<ChildProcess>();
  readonly #stop = new AbortController();

  /** Aborted when everything is to end, for children that others start. */
  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  constructor() {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
      process.once(signal, () => {
        this.killAll();
        process.exit(1);
      });
    }
    process.once('exit', () => this.killAll());
  }

  spawn(
    name: string,
    args: readonly string[],
    output: 'pipe' | 'ignore',
    extra: NodeJS.ProcessEnv = {},
  ): ChildProcess {
    // Servers run as they do in service: what run.ts sets for this process is not for them.
    const { SEALBD_TESTING: _testing, SEALBD_ADDON: _addon, ...env } = process.env;
    const child = spawn(name, args, { stdio: ['ignore', output, output], env: { ...env, ...extra } });
    this.#children.add(child);
    child.once('close', () => this.#children.delete(child));
    return child;
  }

  killAll(): void {
    this.#stop.abort();
    for (const child of this.#children) child.kill('SIGKILL');
  }

  /** Kills what is left and waits until it is gone. */
  async end(): Promise<void> {
    const gone = [...this.#children].map((child) => new Promise((resolve) => child.once('close', resolve)));
    this.killAll();
    await Promise.all(gone);
  }
}

/** Runs a program to its end; fails with all it said unless it succeeds in time. */
export function run(
  programs: Programs,
  name: string,
  args: readonly string[],
  timeoutMs: number,
  env: NodeJS.ProcessEnv = {},
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = programs.spawn(name, args, 'pipe', env);
    const text = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr'] as const) {
      child[stream]!.setEncoding('utf8').on('data', (part: string) => {
        text[stream] += part;
      });
    }
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    child.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      if (code === 0) return resolve(text);
      const how = late ? `took more than ${timeoutMs} ms` : `ended with ${signal ?? `exit code ${code}`}`;
      reject(new Error(`${name} ${args.join(' ')} ${how}\n${text.stdout}\n${text.stderr}`));
    });
  });
}

/** Ends a server with SIGTERM; fails where it does not leave in time and with exit code 0. */
export function stop(child: ChildProcess, what: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const ended = (): void => {
      clearTimeout(timer);
      if (child.exitCode === 0) resolve();
      else reject(new Error(`${what} ended with ${child.signalCode ?? `exit code ${child.exitCode}`}`));
    };
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    if (child.exitCode !== null || child.signalCode !== null) return ended();
    child.once('close', ended);
    child.kill('SIGTERM');
  });
}

/** Polls until `ready` gives something; fails where the child has ended, or after the timeout. */
export async function until<T>(
  child: ChildProcess,
  what: string,
  timeoutMs: number,
  ready: () => T | undefined,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const value = ready();
    if (value !== undefined) return value;
    if (child.exitCode !== null) throw new Error(`${what} ended with exit code ${child.exitCode}`);
    if (performance.now() > deadline) throw new Error(`${what} is not ready after ${timeoutMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
