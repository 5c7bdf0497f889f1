/** Follows a job of the daemon with a progress bar. Ctrl-C stops the watching, not the job. */
import { SingleBar } from 'cli-progress';
import type { AdminClient } from '../admin/client.js';
import type { JobInfo } from '../admin/schemas.js';
import { formatSize } from '../base/units.js';
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
    format: `${started.kind} ${started.volume} [{bar}] {percentage}% {done} of {all}`,
    hideCursor: true,
  });
  const shown = (job: JobInfo) => ({ done: formatSize(job.doneBytes), all: formatSize(job.totalBytes) });
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
