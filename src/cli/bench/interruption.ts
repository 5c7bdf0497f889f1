/** Ctrl-C, SIGTERM and SIGHUP as an AbortSignal, so that what has begun can be cleaned up. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Runs `work` to its end, cleaning up included; then the process ends by the signal that came meanwhile, if one did. */
export async function interruptible<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  let received: NodeJS.Signals | undefined;
  const onSignal = (signal: NodeJS.Signals): void => {
    received ??= signal;
    abort.abort();
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    return await work(abort.signal);
  } finally {
    for (const signal of SIGNALS) process.removeListener(signal, onSignal);
    // With nobody listening, it ends the process as it does by default: a shell sees what ended it.
    if (received !== undefined) process.kill(process.pid, received);
  }
}
