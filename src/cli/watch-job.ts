/** Follows a job of the daemon with a progress bar. Ctrl-C stops the watching, not the job. */
import { SingleBar } from 'cli-progress';
import type { AdminClient } from '../admin/client.js';
import type { JobInfo } from '../admin/schemas.js';
import { formatDuration, formatSize } from '../base/units.js';
import { note } from './output.js';

const POLL_MS = 200;
const NON_TTY_LINE_MS = 2000;

/** The job once it has ended. */
export async function watchJob(client: AdminClient, started: JobInfo): Promise<JobInfo> {
  const onInterrupt = (): void => {
    note(`\njob ${started.id} goes on; see "sealbd job list"`);
    process.removeListener('SIGINT', onInterrupt);
    process.kill(process.pid, 'SIGINT');
  };
  process.on('SIGINT', onInterrupt);
  const bar = new SingleBar({
    stream: process.stderr,
    noTTYOutput: true,
    notTTYSchedule: NON_TTY_LINE_MS,
    format: `${started.kind} ${started.volume} [{bar}] {percentage}% {done} of {all}, {rate}/s, {left} left`,
    hideCursor: true,
  });
  const pace = new Pace();
  const shown = (job: JobInfo) => ({
    ...{ done: formatSize(job.doneBytes), all: formatSize(job.totalBytes) },
    ...pace.of(job, performance.now()),
  });
  bar.start(started.totalBytes, started.doneBytes, shown(started));
  try {
    let job = started;
    while (job.state === 'running') {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      job = await client.job(started.id);
      bar.setTotal(job.totalBytes);
      bar.update(job.doneBytes, shown(job));
    }
    return job;
  } finally {
    bar.stop();
    process.removeListener('SIGINT', onInterrupt);
  }
}

const PACE_WINDOW_MS = 10_000;

/** The rate of the last seconds, and how long the rest takes at it. */
class Pace {
  readonly #seen: { readonly at: number; readonly done: number }[] = [];

  of(job: Pick<JobInfo, 'doneBytes' | 'totalBytes'>, now: number): { rate: string; left: string } {
    this.#seen.push({ at: now, done: job.doneBytes });
    while (this.#seen.length > 2 && now - this.#seen[0].at > PACE_WINDOW_MS) this.#seen.shift();
    const { at, done } = this.#seen[0];
    const rate = now > at ? Math.max(0, ((job.doneBytes - done) / (now - at)) * 1000) : 0;
    const left = (job.totalBytes - job.doneBytes) / rate;
    return {
      rate: formatSize(Math.round(rate)),
      left: Number.isFinite(left) ? formatDuration(Math.round(left) * 1000) : '?',
    };
  }
}
