/** Trials of several subjects in rounds, and what may be compared: ratios within a round. */
import type { Figures } from './fio.js';
import { median } from './statistics.js';

export interface Trial extends Omit<Figures, 'operations' | 'bytes' | 'clientCpuUs'> {
  readonly workload: string;
  /** The server or volume. */
  readonly subject: string;
  readonly round: number;
}

/** The order of the subjects in a round: each comes first once, and neighbours change sides. */
export function orderOf<T>(subjects: readonly T[], round: number): T[] {
  const turn = round % subjects.length;
  const order = [...subjects.slice(turn), ...subjects.slice(0, turn)];
  return round % 2 === 1 ? order.reverse() : order;
}

export function trialsOf<T extends Trial>(trials: readonly T[], workload: string, subject: string): T[] {
  return trials.filter((trial) => trial.workload === workload && trial.subject === subject);
}

/** Throughput of `subject` by that of `to`, one for each round. */
export function ratios(trials: readonly Trial[], workload: string, subject: string, to: string): number[] {
  const others = trialsOf(trials, workload, to);
  return trialsOf(trials, workload, subject).map((trial) => {
    const other = others.find(({ round }) => round === trial.round);
    if (other === undefined) throw new Error(`round ${trial.round} of ${workload} has no trial of ${to}`);
    return trial.iops / other.iops;
  });
}

/** The middle of one figure over the rounds. */
export function middle<Key extends string>(
  trials: readonly Readonly<Record<Key, number>>[],
  key: Key,
): number {
  return median(trials.map((trial) => trial[key]));
}
