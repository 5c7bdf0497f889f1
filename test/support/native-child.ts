/** Plain JavaScript in a process of its own, with the addon: for what ends a process, or needs its limits changed. */
import { type ChildProcess, spawn } from 'node:child_process';
import { ADDON_FILE } from './native-kernels.js';
import { hasProgram, type ProgramResult, runProgram } from './programs.js';

function source(script: string): string {
  return `const addon = require(${JSON.stringify(ADDON_FILE)});\n${script}`;
}

export interface ChildOptions {
  readonly env?: NodeJS.ProcessEnv;
  /** Prepended to the command. */
  readonly wrapper?: readonly string[];
}

/** Runs `script` to its end. */
export function inChild(script: string, options: ChildOptions = {}): Promise<ProgramResult> {
  const [program, ...args] = [...(options.wrapper ?? []), process.execPath, '-e', source(script)];
  return runProgram(program, args, { env: { ...options.env }, timeoutMs: 50_000 });
}

/** The same while it runs. The caller ends it. */
export function startChild(script: string): ChildProcess {
  return spawn(process.execPath, ['-e', source(script)], { stdio: ['ignore', 'pipe', 'inherit'] });
}

/** What starts a process that may lock `bytes` and no more; undefined where this machine cannot do that. */
export function lockedMemoryLimit(bytes: number): string[] | undefined {
  if (!hasProgram('prlimit')) return undefined;
  const limit = ['prlimit', `--memlock=${bytes}:${bytes}`];
  if (process.getuid?.() !== 0) return limit;
  // The limit does not hold for whoever has CAP_IPC_LOCK.
  if (!hasProgram('setpriv')) return undefined;
  return [...limit, 'setpriv', '--bounding-set=-ipc_lock', '--inh-caps=-ipc_lock'];
}
