/**
 * The jobs that the pool runs. They carry handles, refs and ranges, never key bytes and never data: both live in
 * memory of the addon that all threads share. Results are the addon's run statuses.
 */
import { addon, type SegmentKeyHandle } from '../native/addon.js';

export interface SealJob {
  readonly op: 'seal';
  readonly key: SegmentKeyHandle;
  readonly dst: number;
  readonly src: number;
  readonly blocks: number;
  readonly position: number;
  readonly lba: number;
  readonly sequence: number;
  readonly durable: number;
  readonly kind: number;
}

export interface OpenJob {
  readonly op: 'open';
  readonly key: SegmentKeyHandle;
  readonly dst: number;
  readonly src: number;
  readonly blocks: number;
  readonly position: number;
  readonly lba: number;
}

export interface ReadJob {
  readonly op: 'read';
  readonly key: SegmentKeyHandle;
  readonly fd: number;
  readonly fileOffset: number;
  readonly blocks: number;
  readonly dst: number;
  readonly position: number;
  readonly lba: number;
}

/** Many short runs of one request, each with its own segment (`addon.readRuns`). */
export interface ReadManyJob {
  readonly op: 'read-many';
  readonly runs: Float64Array;
  /** The runs [first, count) are read, in order, up to the first that fails. */
  readonly first: number;
  readonly count: number;
  /** Gets the status of the run that failed. */
  readonly outcome: Float64Array;
}

export interface ScanJob {
  readonly op: 'scan';
  readonly key: SegmentKeyHandle;
  readonly dst: number;
  readonly src: number;
  readonly blocks: number;
  readonly position: number;
  /** One byte a slot: 1 where it authenticates. */
  readonly valid: Uint8Array;
}

export type CipherJob = SealJob | OpenJob | ReadJob | ReadManyJob | ScanJob;

/**
 * Runs a job on the calling thread. `noWait` concerns reads alone: never block on the disk. Returns the status; of many runs,
 * the index of the first that failed, or their number.
 */
export function runJob(job: CipherJob, noWait: boolean): number {
  switch (job.op) {
    case 'seal':
      return addon.sealRun(
        job.key,
        job.dst,
        job.src,
        job.blocks,
        job.position,
        job.lba,
        job.sequence,
        job.durable,
        job.kind,
      );
    case 'open':
      return addon.openRun(job.key, job.dst, job.src, job.blocks, job.position, job.lba);
    case 'read':
      return addon.readRun(
        job.key,
        job.fd,
        job.fileOffset,
        job.blocks,
        job.dst,
        job.position,
        job.lba,
        noWait,
      );
    case 'read-many':
      return addon.readRuns(job.runs, job.first, job.count, noWait, job.outcome);
    case 'scan':
      return addon.scanRun(job.key, job.dst, job.src, job.blocks, job.position, job.valid);
  }
}
