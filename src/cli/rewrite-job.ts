/** What `key rotate`, `key set` and `volume encrypt` share: follow the job that rewrites old data. */
import type { AdminClient } from '../admin/client.js';
import type { JobInfo } from '../admin/schemas.js';
import { formatSize } from '../base/units.js';
import { EXIT, exitCodeOfErrorCode } from './exit-codes.js';
import { note, print } from './output.js';
import { watchJob } from './watch-job.js';

/** Waits for the job and says how it ended, on stdout or by the exit code; with `detach` it goes on alone. */
export async function followRewrite(
  client: AdminClient,
  started: JobInfo,
  detach: boolean,
): Promise<JobInfo> {
  if (detach) return started;
  const job = await watchJob(client, started);
  if (job.state === 'failed') process.exitCode = exitCodeOfErrorCode(job.error?.code ?? 'FAILED');
  if (job.state === 'cancelled') process.exitCode = EXIT.failed;
  return job;
}

export function reportRewrite(job: JobInfo, done: string): void {
  if (job.state === 'running') print(`job ${job.id} rewrites the data; see "sealbd job list"`);
  else if (job.state === 'done') print(`${job.volume}: ${formatSize(job.doneBytes)} rewritten; ${done}`);
  else note(`${job.volume}: ${job.state}${job.error === null ? '' : `: ${job.error.message}`}`);
}
