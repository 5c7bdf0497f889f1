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

type Measured = Trial & {
  readonly serverCpuUs: number;
  readonly clientCpuUs: number;
  readonly mediumWrittenBytes: number;
  readonly bytes: number;
  readonly residentBytes: number;
};

/**
 * Where all cores are busy, who needs less processor time for a request, the client's included, does more of them: what
 * ours would reach at best beside the plaintext bar.
 */
export function processorTable(workloads: readonly Workload[], trials: readonly Measured[]): Table {
  const present = new Set(trials.map((trial) => trial.subject));
  const cost = (workload: string, subject: string) => {
    const of = trialsOf(trials, workload, subject);
    const [server, client] = [middle(of, 'serverCpuUs'), middle(of, 'clientCpuUs')];
    const medium = middle(of, 'mediumWrittenBytes') / middle(of, 'bytes');
    return { server, client, medium, cores: (middle(of, 'iops') * (server + client)) / 1e6 };
  };
  return {
    title: 'Processor time of server and client for each request, µs',
    columns: [
      { key: 'workload', label: 'workload' },
      { key: 'gcmServer', label: `${GCM}, server`, digits: 1 },
      { key: 'gcmClient', label: 'client', digits: 1 },
      { key: 'gcmCores', label: 'cores busy', digits: 2 },
      { key: 'barServer', label: `${PLAIN_BAR}, server`, digits: 1 },
      { key: 'barClient', label: 'client', digits: 1 },
      { key: 'barCores', label: 'cores busy', digits: 2 },
      { key: 'atBest', label: 'gcm / bar at best', digits: 2 },
      { key: 'gcmMedium', label: 'gcm: bytes for the medium a byte', digits: 2 },
      { key: 'barMedium', label: 'bar', digits: 2 },
    ],
    rows: (present.has(PLAIN_BAR) ? workloads : []).map(({ name }) => {
      const [ours, bar] = [cost(name, GCM), cost(name, PLAIN_BAR)];
      return {
        workload: name,
        ...{ gcmServer: ours.server, gcmClient: ours.client, gcmCores: ours.cores },
        ...{ barServer: bar.server, barClient: bar.client, barCores: bar.cores },
        ...{ gcmMedium: ours.medium, barMedium: bar.medium },
        atBest: (bar.server + bar.client) / (ours.server + ours.client),
      };
    }),
  };
}

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
