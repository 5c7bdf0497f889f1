/** Waiting for what a process does in its own time. */
import { setTimeout as sleep } from 'node:timers/promises';

/** Far beyond what anything takes, on a slow machine too. */
export const DEADLINE_MS = 30_000;

/** Resolves when it holds, asking again and again; rejects past the deadline. */
export async function until(
  what: string,
  holds: () => Promise<boolean> | boolean,
  { deadlineMs = DEADLINE_MS, everyMs = 20 } = {},
): Promise<void> {
  const deadline = Date.now() + deadlineMs;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`not in ${deadlineMs} ms: ${what}`);
    await sleep(everyMs);
  }
}
