/** The charts of a run, from its single trials over NBD. */
import { median } from '../src/cli/bench/statistics.js';
import { ratios, type Trial, trialsOf } from '../src/cli/bench/trials.js';
import type { BenchFile } from './result.js';
import { type Bar, type Chart, renderChart } from './svg.js';

/** What the reference system says that it loses to encryption, in percent. */
const REFERENCE = { from: 5, to: 15, label: 'what the reference system loses: 5 to 15 %' };
const NONE = 'sealbd none';
const ENCRYPTED = ['sealbd aes-256-gcm', 'sealbd aes-256-ctr'];
const LARGE = /^1 MiB/;
export const TRIALS_TITLE = 'Single trials over NBD';

export interface ChartFile {
  /** Without its ending. */
  readonly name: string;
  readonly title: string;
  readonly svg: string;
}

/** None where the run had no trials over NBD. */
export function chartsOf({ groups }: BenchFile): ChartFile[] {
  const table = groups.nbd?.tables.find(({ title }) => title === TRIALS_TITLE);
  if (table === undefined) return [];
  const trials = table.rows as readonly unknown[] as readonly Trial[];
  const workloads = [...new Set(trials.map(({ workload }) => workload))];
  const large = workloads.filter((name) => LARGE.test(name));
  const small = workloads.filter((name) => !LARGE.test(name));
  const charts: [string, Chart][] = [
    ['penalty', penaltyChart(workloads, trials)],
    [
      'throughput',
      rateChart('Throughput of large requests, against other servers', 'MiB/s', large, trials, 'mibPerS'),
    ],
    [
      'iops',
      rateChart('4 KiB requests, against other servers', 'thousand requests/s', small, trials, 'iops', 1000),
    ],
  ];
  return charts.map(([name, chart]) => ({ name, title: chart.title, svg: renderChart(chart) }));
}

function barOf(values: readonly number[]): Bar | undefined {
  if (values.length === 0) return undefined;
  return { value: median(values), low: Math.min(...values), high: Math.max(...values) };
}

function penaltyChart(workloads: readonly string[], trials: readonly Trial[]): Chart {
  const cost = (workload: string, subject: string): Bar | undefined =>
    barOf(ratios(trials, workload, subject, NONE).map((ratio) => (1 - ratio) * 100));
  return {
    title: 'What encryption costs: throughput lost against the same engine without a cipher',
    axis: '% of throughput lost (negative: faster)',
    series: ENCRYPTED,
    groups: workloads.map((label) => ({ label, bars: ENCRYPTED.map((subject) => cost(label, subject)) })),
    band: REFERENCE,
  };
}

function rateChart(
  title: string,
  axis: string,
  workloads: readonly string[],
  trials: readonly Trial[],
  key: 'iops' | 'mibPerS',
  unit = 1,
): Chart {
  const present = [...new Set(trials.map(({ subject }) => subject))];
  const own = [...ENCRYPTED, NONE];
  const series = [...own, ...present.filter((subject) => !own.includes(subject)).sort()];
  return {
    title,
    axis,
    series,
    groups: workloads.map((label) => ({
      label,
      bars: series.map((subject) =>
        barOf(trialsOf(trials, label, subject).map((trial) => trial[key] / unit)),
      ),
    })),
  };
}
