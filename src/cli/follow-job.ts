/** What `backup create`, `restore` and `snapshot clone` share: follow a job, and say what came of it. */
import type { AdminClient } from '../admin/client.js';
import type { JobInfo } from '../admin/schemas.js';
import { EXIT, exitCodeOfErrorCode } from './exit-codes.js';
import { note, print, printJson } from './output.js';
import { watchJob } from './watch-job.js';

export interface FollowOptions {
  readonly detach?: boolean;
  readonly json?: boolean;
}

/** Exits 5 where the job ended and something is lost. */
export async function followJob(
  client: AdminClient,
  started: JobInfo,
  { detach, json }: FollowOptions,
  done: (job: JobInfo) => string,
): Promise<void> {
  const job = detach === true ? started : await watchJob(client, started);
  process.exitCode = exitCodeOf(job);
  if (json) return printJson(job);
  if (job.state === 'running') return print(`job ${job.id}`);
  if (job.state !== 'done')
    return note(`${job.volume}: ${job.state}${job.error === null ? '' : `: ${job.error.message}`}`);
  print(`${job.volume}: ${done(job)}`);
  for (const { offset, length } of job.result?.lost ?? []) print(`lost: offset ${offset}, length ${length}`);
  for (const problem of job.result?.problems ?? []) print(`problem: ${problem}`);
}

function exitCodeOf(job: JobInfo): number {
  if (job.state === 'running') return EXIT.done;
  if (job.state === 'failed') return exitCodeOfErrorCode(job.error?.code ?? 'FAILED');
  if (job.state !== 'done' || job.result === null) return EXIT.failed;
  return job.result.lost.length + job.result.problems.length > 0 ? EXIT.integrity : EXIT.done;
}
