/** Rounds of fio against volumes of a running daemon. */
import { note } from '../output.js';
import { fill, measureWorkload, readAll } from './fio.js';
import { orderOf, type Trial } from './trials.js';
import type { Workload } from './workloads.js';

/** Of filling a volume, or reading it whole: 512 MiB at 1 MiB/s. */
const WHOLE_TIMEOUT_MS = 600_000;
/** The round before the first, whose figures are thrown away, is shorter. */
const WARM_UP_SHARE = 4;

export interface Subject {
  readonly volume: string;
  readonly uri: string;
  /** What is used of it, from its beginning. */
  readonly sizeBytes: number;
}

export interface Plan {
  readonly subjects: readonly Subject[];
  readonly workloads: readonly Workload[];
  readonly rounds: number;
  readonly trialMs: number;
  /** Subjects are written whole before each round; without it they are read whole. */
  readonly fill: boolean;
}

/** Rounds after one for warming up. Within a round every workload runs on each volume in turn. */
export async function measure(plan: Plan, signal: AbortSignal): Promise<Trial[]> {
  const trials: Trial[] = [];
  for (let round = 0; round <= plan.rounds; round++) {
    note(round === 0 ? 'warming up' : `round ${round} of ${plan.rounds}`);
    const order = orderOf(plan.subjects, round);
    for (const { uri, sizeBytes } of order) {
      const options = { uri, sizeBytes, signal };
      // Once with checksums that are read back: what does not store is not measured.
      if (plan.fill) await fill(options, round === 0, WHOLE_TIMEOUT_MS);
      await readAll(options, WHOLE_TIMEOUT_MS);
    }
    const trialMs = round === 0 ? Math.ceil(plan.trialMs / WARM_UP_SHARE) : plan.trialMs;
    for (const workload of plan.workloads) {
      for (const { volume, uri, sizeBytes } of order) {
        const options = { uri, sizeBytes, signal };
        const { iops, mibPerS, p50us, p99us } = await measureWorkload(options, workload, trialMs);
        const figures = { iops, mibPerS, p50us, p99us };
        if (round > 0) trials.push({ workload: workload.name, subject: volume, round, ...figures });
      }
    }
  }
  return trials;
}
