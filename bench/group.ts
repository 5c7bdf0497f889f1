/** Both ends of a group's process: options go in as an argument, the result comes out on stdout. */
import { spawn } from 'node:child_process';
import { basename } from 'node:path';
import type { GroupOptions, GroupResult } from './result.js';

/** Runs a group in a process of its own and returns what it measured; what it says on the way goes to stderr. */
export function spawnGroup(
  file: string,
  options: GroupOptions,
  timeoutMs: number,
  env: Readonly<Record<string, string>> = {},
): Promise<GroupResult> {
  return new Promise((resolve, reject) => {
    // A timeout is a SIGTERM: the group ends its own children before it goes.
    const child = spawn(process.execPath, [file, JSON.stringify(options)], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...env },
      timeout: timeoutMs,
    });
    // Whoever ends this process ends the group too, and hears of it when the group has gone.
    const end = (): void => {
      child.kill('SIGTERM');
    };
    process.once('SIGTERM', end);
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
    child.once('error', reject);
    child.once('close', (code, signal) => {
      process.off('SIGTERM', end);
      if (code !== 0) reject(new Error(`${basename(file)} ended with ${signal ?? `exit code ${code}`}`));
      else resolve(JSON.parse(text) as GroupResult);
    });
  });
}

/** The main program of a group. An error ends the process with a stack and a code, so it fails the run. */
export async function runGroup(measure: (options: GroupOptions) => Promise<GroupResult>): Promise<void> {
  const [, , argument] = process.argv;
  if (argument === undefined) throw new Error('groups are run by bench/run.ts');
  const result = await measure(JSON.parse(argument) as GroupOptions);
  await new Promise<void>((resolve, reject) =>
    process.stdout.write(JSON.stringify(result), (error) => (error ? reject(error) : resolve())),
  );
}

export function progress(text: string): void {
  process.stderr.write(`${text}\n`);
}
