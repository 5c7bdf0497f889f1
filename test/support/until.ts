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

/** What it resolves to; rejects where that takes longer. */
export async function within<T>(deadlineMs: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not in ${deadlineMs} ms: ${what}`)), deadlineMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
