import type { Command } from 'commander';
import type { JobInfo } from '../../admin/schemas.js';
import { formatSize } from '../../base/units.js';
import { clientFor, type ListingOptions } from '../context.js';
import { print, printJson, printTable } from '../output.js';

export const JOB_HEAD = ['id', 'kind', 'volume', 'state', 'done', 'of', 'started at', 'ended at', 'error'];

export async function jobList(options: ListingOptions, command: Command): Promise<void> {
  const jobs = await clientFor(command).listJobs();
  if (options.json) return printJson(jobs);
  if (jobs.length === 0) return print('no jobs');
  printTable(JOB_HEAD, jobRows(jobs));
}

export function jobRows(jobs: readonly JobInfo[]): string[][] {
  return jobs.map((job) => [
    job.id,
    job.kind,
    job.volume,
    job.state,
    formatSize(job.doneBytes),
    formatSize(job.totalBytes),
    job.startedAt,
    job.endedAt ?? '-',
    job.error?.message ?? '-',
  ]);
}
