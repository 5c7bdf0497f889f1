/** Real `sealbd` processes: the daemon, and commands beside it. Needs `npm run build`. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { onTestFinished } from 'vitest';

/** The program, for tests that run it through a shell. */
export const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const START_TIMEOUT_MS = 30_000;

export interface RunResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Prepended to the command, such as ['prlimit', '--memlock=0']. */
  readonly wrapper?: readonly string[];
}

function launch(args: readonly string[], options: RunOptions): ChildProcess {
  if (!existsSync(MAIN)) throw new Error('dist/ is missing: run "npm run build" first');
  const [program, ...rest] = [...(options.wrapper ?? []), process.execPath, MAIN, ...args];
  const { SEALBD_DATA: _data, SEALBD_PASSPHRASE: _passphrase, ...inherited } = process.env;
  const env = { ...inherited, ...options.env };
  return spawn(program, rest, { cwd: options.cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
}

function collect(child: ChildProcess): {
  text: { stdout: string; stderr: string };
  ended: Promise<RunResult>;
} {
  const text = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]!.setEncoding('utf8').on('data', (chunk: string) => {
      text[name] += chunk;
    });
  }
  const ended = new Promise<RunResult>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code, signal, ...text }));
  });
  return { text, ended };
}

/** A command that runs on: its process, its output so far, its end. */
export function sealbdProcess(
  args: readonly string[],
  options: RunOptions = {},
): { child: ChildProcess; text: { stdout: string; stderr: string }; ended: Promise<RunResult> } {
  const child = launch(args, options);
  return { child, ...collect(child) };
}

/** Runs one command to its end. */
export function sealbd(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return collect(launch(args, options)).ended;
}

export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** A daemon on a port of its own. Killed when the test has finished. */
export class DaemonProcess {
  readonly data: string;
  readonly #child: ChildProcess;
  readonly #text: { stderr: string };
  readonly #ended: Promise<RunResult>;

  private constructor(
    data: string,
    child: ChildProcess,
    text: { stderr: string },
    ended: Promise<RunResult>,
  ) {
    this.data = data;
    this.#child = child;
    this.#text = text;
    this.#ended = ended;
  }

  /** A daemon that is killed when the test has finished. */
  static async start(
    data: string,
    args: readonly string[] = [],
    options: RunOptions = {},
  ): Promise<DaemonProcess> {
    const daemon = DaemonProcess.#launch(data, args, options);
    onTestFinished(async () => {
      await daemon.signal('SIGKILL');
    });
    await daemon.#untilReady();
    return daemon;
  }

  /** A daemon that outlives the test: the caller stops it. */
  static async startShared(
    data: string,
    args: readonly string[] = [],
    options: RunOptions = {},
  ): Promise<DaemonProcess> {
    const daemon = DaemonProcess.#launch(data, args, options);
    await daemon.#untilReady();
    return daemon;
  }

  static #launch(data: string, args: readonly string[], options: RunOptions): DaemonProcess {
    const listen = args.includes('--listen') ? [] : ['--listen', '127.0.0.1:0'];
    const child = launch(['serve', '--data', data, ...listen, ...args], options);
    const { text, ended } = collect(child);
    return new DaemonProcess(data, child, text, ended);
  }

  get pid(): number {
    return this.#child.pid!;
  }

  get logText(): string {
    return this.#text.stderr;
  }

  log(): LogLine[] {
    // What follows the last line end is not whole yet.
    const lines = this.logText.split('\n').slice(0, -1);
    return lines.map((line) => JSON.parse(line) as LogLine);
  }

  get ready(): LogLine & { listen: string[]; admin: string[] } {
    return this.log().find((line) => line.msg.startsWith('ready')) as LogLine & {
      listen: string[];
      admin: string[];
    };
  }

  uri(exportName: string): string {
    return `nbd://${this.ready.listen[0]}/${exportName}`;
  }

  /** Rejects with the log where the daemon ends before it is ready. */
  async #untilReady(): Promise<void> {
    const deadline = Date.now() + START_TIMEOUT_MS;
    let gone = false;
    void this.#ended.then(() => {
      gone = true;
    });
    while (!this.log().some((line) => line.msg.startsWith('ready'))) {
      if (gone || Date.now() > deadline) throw new Error(`the daemon is not ready:\n${this.logText}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** A command against this daemon. */
  run(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
    return sealbd([...args, '--data', this.data], options);
  }

  /** The JSON of a listing; fails the test where the command does not exit with `code`. */
  async json<T>(args: readonly string[], code = 0): Promise<T> {
    const result = await this.run([...args, '--json']);
    if (result.code !== code) throw new Error(`${args.join(' ')}: exit ${result.code}\n${result.stderr}`);
    return JSON.parse(result.stdout) as T;
  }

  /** For commands that must work. */
  async ok(...args: string[]): Promise<string> {
    const result = await this.run(args);
    if (result.code !== 0) throw new Error(`${args.join(' ')}: exit ${result.code}\n${result.stderr}`);
    return result.stdout;
  }

  async signal(signal: NodeJS.Signals): Promise<RunResult> {
    this.#child.kill(signal);
    return this.#ended;
  }

  stop(): Promise<RunResult> {
    return this.signal('SIGTERM');
  }
}

export function adminSocket(data: string): string {
  return join(data, 'admin.sock');
}
