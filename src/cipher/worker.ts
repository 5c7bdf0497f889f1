/** A pool thread. It blocks on purpose: a cipher job is pure computation, a cold read is one wait for the disk. */
import { type CipherJob, runJob } from './jobs.js';

export interface WorkerResult {
  readonly status: number;
  /** What the job filled: a message copies it, so it travels back. */
  readonly valid?: Uint8Array;
  readonly outcome?: Float64Array;
}

export function run(job: CipherJob): WorkerResult {
  const status = runJob(job, false);
  if (job.op === 'scan') return { status, valid: job.valid };
  return job.op === 'read-many' ? { status, outcome: job.outcome } : { status };
}
