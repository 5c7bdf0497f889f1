/** Long work that runs in the daemon whether or not anybody watches: progress, cancel, and the last results. */
import type { JobInfo, VerifyResult } from '../admin/schemas.js';
import { type Clock, sleep } from '../base/clock.js';
import { isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import { JOBS_REMEMBERED_MAX, JOBS_RUNNING_MAX } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { JobControl } from '../keys/job-keys.js';

/** What a job does; only a verification has a result to show. */
type Work = (control: JobControl) => Promise<VerifyResult | undefined>;

interface Job {
  readonly id: string;
  readonly kind: JobInfo['kind'];
  readonly volume: string;
  /** Another volume that it reads, and ends with. */
  readonly source: string | undefined;
  readonly abort: AbortController;
  readonly startedAt: number;
  state: JobInfo['state'];
  doneBytes: number;
  totalBytes: number;
  endedAt: number | undefined;
  error: JobInfo['error'];
  result: VerifyResult | undefined;
  ended: Promise<void>;
}

export class Jobs {
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #jobs = new Map<string, Job>();
  #nextId = 1;
  #closed = false;

  constructor(clock: Clock, log: Logger) {
    this.#clock = clock;
    this.#log = log;
  }

  /** CONFLICT where the volume has a job of this kind already, or (but with `always`) too many jobs run; ESHUTDOWN after `close`. */
  start(
    kind: JobInfo['kind'],
    volume: string,
    work: Work,
    { always = false, source }: { readonly always?: boolean; readonly source?: string } = {},
  ): JobInfo {
    if (this.#closed) throw new SealbdError('ESHUTDOWN', 'the daemon is shutting down');
    const running = this.#running();
    if (this.#runningJob(volume, kind) !== undefined) {
      throw new SealbdError('CONFLICT', `volume "${volume}" has a ${kind} job under way`);
    }
    if (running.length >= JOBS_RUNNING_MAX && !always) {
      throw new SealbdError('CONFLICT', `${JOBS_RUNNING_MAX} jobs are under way; more are not started`);
    }
    const job: Job = {
      id: String(this.#nextId),
      kind,
      volume,
      source,
      abort: new AbortController(),
      startedAt: this.#clock.now(),
      state: 'running',
      doneBytes: 0,
      totalBytes: 0,
      endedAt: undefined,
      error: null,
      result: undefined,
      ended: Promise.resolve(),
    };
    this.#nextId += 1;
    this.#forgetOldest();
    this.#jobs.set(job.id, job);
    job.ended = this.#run(job, work);
    return view(job);
  }

  /** The job of this kind that runs on this volume. */
  running(volume: string, kind: JobInfo['kind']): JobInfo | undefined {
    const job = this.#runningJob(volume, kind);
    return job === undefined ? undefined : view(job);
  }

  /** A job that works on this volume, or reads it. */
  concerning(volume: string): JobInfo | undefined {
    const job = this.#running().find((one) => one.volume === volume || one.source === volume);
    return job === undefined ? undefined : view(job);
  }

  /** Resolves when no job of this kind runs on this volume. */
  async ended(volume: string, kind: JobInfo['kind']): Promise<void> {
    await this.#runningJob(volume, kind)?.ended;
  }

  #runningJob(volume: string, kind: JobInfo['kind']): Job | undefined {
    return this.#running().find((job) => job.volume === volume && job.kind === kind);
  }

  list(): JobInfo[] {
    return [...this.#jobs.values()].map(view);
  }

  get(id: string): JobInfo {
    return view(this.#find(id));
  }

  /**
   * Waits until the job has ended, or for `limitMs`: one that hangs in I/O is `running` then, and ends when that does. Cancelling
   * one that ended already is a CONFLICT.
   */
  async cancel(id: string, limitMs?: number): Promise<JobInfo> {
    const job = this.#find(id);
    if (job.state !== 'running') throw new SealbdError('CONFLICT', `job ${id} is ${job.state}`);
    job.abort.abort();
    if (limitMs === undefined) await job.ended;
    else await Promise.race([job.ended, sleep(this.#clock, limitMs)]);
    return view(job);
  }

  /**
   * Tells the jobs of one volume, those that read it too, or all of them, to end, and does not wait: who closes a volume has a deadline, and
   * its device refuses whatever a job that hangs on the disk asks afterwards.
   */
  abortAll(volume?: string): void {
    for (const job of this.#running())
      if (volume === undefined || job.volume === volume || job.source === volume) job.abort.abort();
  }

  /** Tells all jobs to end; from now on none is started. */
  close(): void {
    this.#closed = true;
    this.abortAll();
  }

  async #run(job: Job, work: Work): Promise<void> {
    const fields = { job: job.id, kind: job.kind, volume: job.volume };
    this.#log.info(fields, 'job started');
    try {
      job.result = await work({
        signal: job.abort.signal,
        onProgress: (doneBytes, totalBytes) => {
          job.doneBytes = doneBytes;
          job.totalBytes = totalBytes;
        },
      });
      job.state = 'done';
    } catch (error) {
      job.state = job.abort.signal.aborted ? 'cancelled' : 'failed';
      const code = isSealbdError(error) ? error.code : 'FAILED';
      if (job.state === 'failed') job.error = { code, message: messageOf(error) };
    }
    job.endedAt = this.#clock.now();
    const outcome = {
      ...fields,
      state: job.state,
      reason: job.error?.message,
      lost: job.result?.lost.length,
    };
    if (job.state === 'failed' || (job.result?.lost.length ?? 0) > 0) this.#log.error(outcome, 'job ended');
    else this.#log.info(outcome, 'job ended');
  }

  #running(): Job[] {
    return [...this.#jobs.values()].filter((job) => job.state === 'running');
  }

  #find(id: string): Job {
    const job = this.#jobs.get(id);
    if (job === undefined) throw new SealbdError('NOT_FOUND', `no job ${id}`);
    return job;
  }

  /** A Map iterates in order of insertion. */
  #forgetOldest(): void {
    for (const job of this.#jobs.values()) {
      if (this.#jobs.size < JOBS_REMEMBERED_MAX) return;
      if (job.state !== 'running') this.#jobs.delete(job.id);
    }
  }
}

function view(job: Job): JobInfo {
  const { id, kind, volume, state, doneBytes, totalBytes, error } = job;
  return {
    id,
    kind,
    volume,
    state,
    doneBytes,
    totalBytes,
    startedAt: new Date(job.startedAt).toISOString(),
    endedAt: job.endedAt === undefined ? null : new Date(job.endedAt).toISOString(),
    error,
    result: job.result ?? null,
  };
}
