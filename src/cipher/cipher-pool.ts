import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Worker } from 'node:worker_threads';
import { Piscina } from 'piscina';
import { SealbdError } from '../base/errors.js';
import { type CipherJob, runJob } from './jobs.js';
import type { WorkerResult } from './worker.js';

export interface CipherPoolOptions {
  readonly threads: number;
  /** Jobs handed to the threads or waiting for one; beyond it callers wait. */
  readonly queueMax?: number;
}

export interface CipherPoolStats {
  readonly threads: number;
  readonly jobs: number;
  readonly waiting: number;
  readonly inlineJobs: number;
}

const QUEUE_MAX = 64;
/** Data and keys are outside of the heaps of the threads, so these can be small. */
const WORKER_LIMITS = { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 64 };

/**
 * Worker threads for large runs, cold reads and background work. Small hot requests do not come here: the caller
 * runs them inline (`runInline`). The queue is bounded: past it, `run` waits its turn, and so does the client.
 */
export class CipherPool {
  readonly #piscina: Piscina<CipherJob, WorkerResult>;
  readonly #threads: number;
  readonly #queueMax: number;
  readonly #waiters: (() => void)[] = [];
  #active = 0;
  #jobs = 0;
  #inlineJobs = 0;
  #closed = false;
  #destroyed: Promise<void> | undefined;
  readonly #loads = new WeakMap<Worker, Promise<void>>();

  constructor(options: CipherPoolOptions) {
    this.#threads = options.threads;
    this.#queueMax = options.queueMax ?? QUEUE_MAX;
    this.#piscina = new Piscina<CipherJob, WorkerResult>({
      filename: workerFile(),
      name: 'run',
      minThreads: options.threads,
      maxThreads: options.threads,
      idleTimeout: Number.POSITIVE_INFINITY,
      recordTiming: false,
      resourceLimits: WORKER_LIMITS,
    });
    this.#watchLoads();
    // A thread that died is replaced in the same turn.
    this.#piscina.on('workerDestroy', () => queueMicrotask(() => this.#watchLoads()));
  }

  /** True where a job would find a thread that has nothing to do. */
  get idle(): boolean {
    return this.#active < this.#threads;
  }

  runInline(job: CipherJob, noWait: boolean): number {
    this.#inlineJobs++;
    return runJob(job, noWait);
  }

  async run(job: CipherJob): Promise<number> {
    while (this.#active >= this.#queueMax && !this.#closed) {
      await new Promise<void>((resolve) => this.#waiters.push(resolve));
    }
    if (this.#closed) throw new SealbdError('ESHUTDOWN', 'the cipher pool is closed');
    this.#active++;
    this.#jobs++;
    try {
      const result = await this.#piscina.run(job);
      if (job.op === 'scan' && result.valid !== undefined) job.valid.set(result.valid);
      if (job.op === 'read-many' && result.outcome !== undefined) job.outcome.set(result.outcome);
      return result.status;
    } finally {
      this.#active--;
      this.#waiters.shift()?.();
    }
  }

  stats(): CipherPoolStats {
    return {
      threads: this.#threads,
      jobs: this.#jobs,
      waiting: this.#waiters.length,
      inlineJobs: this.#inlineJobs,
    };
  }

  /** Waits for the jobs under way and for threads that still load; jobs that wait for a place are refused. */
  destroy(): Promise<void> {
    this.#destroyed ??= this.#destroy();
    return this.#destroyed;
  }

  async #destroy(): Promise<void> {
    this.#closed = true;
    for (const wake of this.#waiters.splice(0)) wake();
    while (this.#active > 0) await new Promise((resolve) => setImmediate(resolve));
    // Node 20 aborts the whole process where a thread is ended while it loads a module with `require`.
    for (const worker of this.#piscina.threads) {
      // Threads without work are unreferenced: the process could end before this wait does.
      worker.ref();
      await this.#loads.get(worker);
    }
    await this.#piscina.destroy();
  }

  /** Remembers of each new thread when it is loaded: piscina tells so with the first message from it. */
  #watchLoads(): void {
    for (const worker of this.#piscina.threads) {
      if (this.#loads.has(worker)) continue;
      const loaded = new Promise<void>((resolve) => {
        worker.once('message', () => resolve());
        worker.once('exit', () => resolve());
      });
      this.#loads.set(worker, loaded);
    }
  }
}

/** Worker threads load JavaScript: when the sources run directly, as under vitest, the built worker is used. */
function workerFile(): string {
  const beside = fileURLToPath(new URL('./worker.js', import.meta.url));
  return existsSync(beside) ? beside : fileURLToPath(new URL('../../dist/cipher/worker.js', import.meta.url));
}
