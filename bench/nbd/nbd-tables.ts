/** Tables of the nbd group: ratios first. */
import { median, rangeOf } from '../../src/cli/bench/statistics.js';
import { middle, ratios, type Trial, trialsOf } from '../../src/cli/bench/trials.js';
import type { Workload } from '../../src/cli/bench/workloads.js';
import type { Cell, Table } from '../result.js';
import { NBDKIT_LUKS, PLAIN_BAR, QEMU_LUKS, QEMU_RAW } from './peers.js';

export const GCM = 'sealbd aes-256-gcm';
export const CTR = 'sealbd aes-256-ctr';
export const NONE = 'sealbd none';

interface Comparison {
  readonly key: string;
  readonly label: string;
  readonly subject: string;
  readonly to: string;
}

const PENALTY: readonly Comparison[] = [
  { key: 'gcmNone', label: 'gcm / none', subject: GCM, to: NONE },
  { key: 'ctrNone', label: 'ctr / none', subject: CTR, to: NONE },
];

const AGAINST_PEERS: readonly Comparison[] = [
  { key: 'gcmNbdkit', label: 'gcm / nbdkit file', subject: GCM, to: PLAIN_BAR },
  { key: 'ctrNbdkit', label: 'ctr / nbdkit file', subject: CTR, to: PLAIN_BAR },
  { key: 'gcmQemu', label: 'gcm / qemu-nbd raw', subject: GCM, to: QEMU_RAW },
  { key: 'gcmNbdkitLuks', label: 'gcm / nbdkit luks', subject: GCM, to: NBDKIT_LUKS },
  { key: 'gcmQemuLuks', label: 'gcm / qemu-nbd luks', subject: GCM, to: QEMU_LUKS },
];

function comparisonTable(
  title: string,
  comparisons: readonly Comparison[],
  workloads: readonly Workload[],
  trials: readonly Trial[],
): Table {
  const present = new Set(trials.map((trial) => trial.subject));
  const shown = comparisons.filter(({ subject, to }) => present.has(subject) && present.has(to));
  return {
    title,
    columns: [
      { key: 'workload', label: 'workload' },
      ...shown.flatMap(({ key, label }) => [
        { key, label, digits: 2 },
        { key: `${key}Range`, label: 'range' },
      ]),
    ],
    rows: workloads.map(({ name }) => {
      const cells: Record<string, Cell> = { workload: name };
      for (const { key, subject, to } of shown) {
        const values = ratios(trials, name, subject, to);
        cells[key] = median(values);
        cells[`${key}Range`] = rangeOf(values, 2);
      }
      return cells;
    }),
  };
}

/** What encryption costs: encrypted by its own plaintext. */
export function penaltyTable(workloads: readonly Workload[], trials: readonly Trial[]): Table {
  return comparisonTable('What encryption costs over NBD', PENALTY, workloads, trials);
}

export function peerTable(workloads: readonly Workload[], trials: readonly Trial[]): Table {
  return comparisonTable('Against other servers', AGAINST_PEERS, workloads, trials);
}

type Measured = Trial & { readonly serverCpuUs: number; readonly residentBytes: number };

export function figureTable(workloads: readonly Workload[], trials: readonly Measured[]): Table {
  const subjects = [...new Set(trials.map((trial) => trial.subject))].sort();
  return {
    title: 'Figures over NBD (medians of the rounds)',
    columns: [
      { key: 'workload', label: 'workload' },
      { key: 'subject', label: 'server' },
      { key: 'iops', label: 'requests/s', digits: 0 },
      { key: 'mibPerS', label: 'MiB/s', digits: 0 },
      { key: 'mibRange', label: 'range' },
      { key: 'p50us', label: 'p50 µs', digits: 0 },
      { key: 'p99us', label: 'p99 µs', digits: 0 },
      { key: 'serverCpuUs', label: 'server CPU µs/request', digits: 1 },
      { key: 'residentMib', label: 'server memory MiB', digits: 0 },
    ],
    rows: workloads.flatMap(({ name }) =>
      subjects.map((subject) => {
        const of = trialsOf(trials, name, subject);
        return {
          workload: name,
          subject,
          iops: middle(of, 'iops'),
          mibPerS: middle(of, 'mibPerS'),
          mibRange: rangeOf(
            of.map((trial) => trial.mibPerS),
            0,
          ),
          p50us: middle(of, 'p50us'),
          p99us: middle(of, 'p99us'),
          serverCpuUs: middle(of, 'serverCpuUs'),
          residentMib: middle(of, 'residentBytes') / 2 ** 20,
        };
      }),
    ),
  };
}
