/** A pool thread. It blocks on purpose: a cipher job is pure computation, a cold read is one wait for the disk. */
import { type CipherJob, runJob } from './jobs.js';

export interface WorkerResult {
  readonly status: number;
  /** Filled by scans; a message copies it, so it travels back. */
  readonly valid: Uint8Array | undefined;
}

export function run(job: CipherJob): WorkerResult {
  const status = runJob(job, false);
  return { status, valid: job.op === 'scan' ? job.valid : undefined };
}
