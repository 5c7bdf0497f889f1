/** What `sealbd bench` prints: ratios first, then figures, each with its spread. */
import { formatSize } from '../../base/units.js';
import { print, printTable } from '../output.js';
import { median, rangeOf } from './statistics.js';
import { middle, ratios, type Trial, trialsOf } from './trials.js';

export interface BenchReport {
  readonly version: string;
  readonly date: string;
  /** A smoke test, whose numbers mean nothing. */
  readonly quick: boolean;
  readonly rounds: number;
  /** Of each trial. */
  readonly seconds: number;
  readonly cpu: string;
  readonly cores: number;
  readonly loadAverage: readonly number[];
  /** Part of the volume that is used, from its beginning. */
  readonly sizeBytes: number;
  /** The ciphers of the volumes, in the order of the columns. */
  readonly subjects: readonly { readonly volume: string; readonly cipher: string | null }[];
  /** Throughput of the encrypted volume by that of the one with the cipher `none`, within each round. Empty for one volume. */
  readonly ratios: readonly {
    readonly workload: string;
    readonly median: number;
    readonly min: number;
    readonly max: number;
  }[];
  readonly figures: readonly {
    readonly workload: string;
    readonly volume: string;
    readonly cipher: string | null;
    readonly iops: number;
    readonly mibPerS: number;
    readonly mibPerSMin: number;
    readonly mibPerSMax: number;
    readonly p50us: number;
    readonly p99us: number;
  }[];
  readonly notes: readonly string[];
}

/** Load average by cores from which on other work takes its share of what is measured. */
export const BUSY_SHARE = 0.5;

type Subjects = BenchReport['subjects'];

/** `subjects`: the encrypted volume and the plain one, or a single volume. */
export function summaryOf(
  trials: readonly Trial[],
  subjects: Subjects,
): Pick<BenchReport, 'ratios' | 'figures'> {
  const workloads = [...new Set(trials.map(({ workload }) => workload))];
  const [encrypted, plain] = subjects;
  return {
    ratios:
      plain === undefined
        ? []
        : workloads.map((workload) => {
            const values = ratios(trials, workload, encrypted.volume, plain.volume);
            return { workload, median: median(values), min: Math.min(...values), max: Math.max(...values) };
          }),
    figures: workloads.flatMap((workload) =>
      subjects.map(({ volume, cipher }) => {
        const of = trialsOf(trials, workload, volume);
        const rates = of.map(({ mibPerS }) => mibPerS);
        return {
          ...{ workload, volume, cipher, iops: middle(of, 'iops'), mibPerS: median(rates) },
          ...{ mibPerSMin: Math.min(...rates), mibPerSMax: Math.max(...rates) },
          ...{ p50us: middle(of, 'p50us'), p99us: middle(of, 'p99us') },
        };
      }),
    ),
  };
}

export function printReport(report: BenchReport): void {
  const { cpu, cores, loadAverage, subjects, rounds, seconds, sizeBytes } = report;
  const load = loadAverage[0].toFixed(2);
  print(`sealbd ${report.version} on ${cpu}, ${cores} cores, load average ${load} before the run`);
  print(`rounds: ${rounds}, ${seconds} s a trial, on the first ${formatSize(sizeBytes)}; caches are warm`);
  if (report.quick) print('this was a --quick run: its numbers mean nothing');
  if (loadAverage[0] > cores * BUSY_SHARE) print('the machine is busy: believe the ranges, not the medians');
  for (const text of report.notes) print(text);
  if (report.ratios.length > 0) {
    print(`\nWhat ${subjects[0].cipher} leaves of the throughput of ${subjects[1].cipher}:`);
    printTable(
      ['workload', 'ratio', 'range', 'cost'],
      report.ratios.map(({ workload, median: ratio, min, max }) => {
        const cost = `${((1 - ratio) * 100).toFixed(1)} %`;
        return [workload, ratio.toFixed(2), rangeOf([min, max], 2), cost];
      }),
    );
  }
  print('\nFigures (medians of the rounds):');
  printTable(
    ['workload', 'cipher', 'requests/s', 'MiB/s', 'range', 'p50 µs', 'p99 µs'],
    report.figures.map((row) => [
      row.workload,
      row.cipher ?? '-',
      row.iops.toFixed(0),
      row.mibPerS.toFixed(0),
      rangeOf([row.mibPerSMin, row.mibPerSMax], 0),
      row.p50us.toFixed(0),
      row.p99us.toFixed(0),
    ]),
  );
}
