/** What was promised, beside what was measured. A target without a measurement says so. */
import type { BenchFile, Cell, Table } from './result.js';

type Groups = BenchFile['groups'];
type Row = Readonly<Record<string, Cell>>;

interface Measured {
  readonly value: number;
  /** Where it was measured. */
  readonly where: string;
}

interface Target {
  readonly target: string;
  readonly bound: number;
  /** At most instead of at least. */
  readonly atMost?: boolean;
  readonly digits: number;
  /** Every value that must keep to it; empty where it was not measured. */
  measured(groups: Groups): Measured[];
}

const LARGE = ['1 MiB sequential write, QD8', '1 MiB sequential read, QD8'];
const SMALL = ['4 KiB random read, QD32', '4 KiB random write, QD32'];
/** In the processor's caches, and long enough to leave the call behind. */
const KIB_IN_CACHE = [4, 64, 1024];
const KIB_OUT_OF_CACHE = 65_536;
const FULL_PERCENT = 90;

function rowsOf(groups: Groups, group: string, title: string): readonly Row[] {
  return groups[group]?.tables.find((table) => table.title === title)?.rows ?? [];
}

function numbers(rows: readonly Row[], key: string, where: (row: Row) => string): Measured[] {
  return rows.flatMap((row) => {
    const value = row[key];
    // All of them are amounts: what a fit makes negative is chance.
    return typeof value === 'number' && value > 0 ? [{ value, where: where(row) }] : [];
  });
}

function kernel(who: string, operations: readonly string[], kib: readonly number[], key: string) {
  return (groups: Groups): Measured[] => {
    const rows = rowsOf(groups, 'kernels', 'AES-256 kernels').filter(
      (row) => row.who === who && operations.includes(String(row.what)) && kib.includes(Number(row.kib)),
    );
    return numbers(rows, key, ({ what, kib: size }) => `${what}, ${size} KiB`);
  };
}

function ratio(title: string, keys: readonly string[], workloads?: readonly string[]) {
  return (groups: Groups): Measured[] => {
    const rows = rowsOf(groups, 'nbd', title).filter(
      ({ workload }) => workloads === undefined || workloads.includes(String(workload)),
    );
    return keys.flatMap((key) => numbers(rows, key, ({ workload }) => String(workload)));
  };
}

const PENALTY = 'What encryption costs over NBD';
const PEERS = 'Against other servers';
/** The two bars: in the same process, where outputs are allocated, and the program that does nothing else. */
const BARS = [
  { key: 'timesEvp', bar: 'EVP in the same process' },
  { key: 'timesOpenssl', bar: 'EVP of `openssl speed`' },
];

function memory(what: string) {
  return (groups: Groups): Measured[] =>
    numbers(
      rowsOf(groups, 'growth', 'Resident memory').filter((row) => row.what === what),
      'value',
      () => '',
    );
}

function besideCp(key: string) {
  return (groups: Groups): Measured[] =>
    numbers(rowsOf(groups, 'backup', 'Backup and restore beside cp'), key, ({ what }) => String(what));
}

/** Of clients while a volume is re-encrypted, by the idle volume. */
function besideRewriting(key: string) {
  return (groups: Groups): Measured[] =>
    numbers(rowsOf(groups, 'rotation', 'Clients during re-encryption'), key, ({ row }) => String(row));
}

/** How many times slower a client with small requests is beside one that asks for much. */
function besideGreedy(groups: Groups): Measured[] {
  return numbers(rowsOf(groups, 'fairness', 'A small client beside a greedy one'), 'times', ({ row }) =>
    String(row),
  );
}

const TARGETS: readonly Target[] = [
  ...BARS.flatMap(({ key, bar }): Target[] => [
    {
      target: `AES-256-CTR with VAES-512, 4 KiB to 1 MiB, by ${bar}`,
      bound: 3,
      digits: 2,
      measured: kernel('vaes512', ['ctr'], KIB_IN_CACHE, key),
    },
    {
      target: `AES-256-GCM with VAES-512, seal and open, 4 KiB to 1 MiB, by ${bar}`,
      bound: 2,
      digits: 2,
      measured: kernel('vaes512', ['seal', 'open'], KIB_IN_CACHE, key),
    },
    {
      target: `AES-256-CTR with AES-NI, 4 KiB to 1 MiB, by ${bar}`,
      bound: 0.95,
      digits: 2,
      measured: kernel('aesni', ['ctr'], KIB_IN_CACHE, key),
    },
  ]),
  {
    target: 'AES-256-CTR with VAES-512 out of the caches (64 MiB), by memcpy',
    bound: 0.85,
    digits: 2,
    measured: kernel('vaes512', ['ctr'], [KIB_OUT_OF_CACHE], 'timesMemcpy'),
  },
  {
    target: 'aes-256-gcm by none, every workload',
    bound: 0.97,
    digits: 3,
    measured: ratio(PENALTY, ['gcmNone']),
  },
  {
    target: 'aes-256-ctr by none, every workload',
    bound: 0.98,
    digits: 3,
    measured: ratio(PENALTY, ['ctrNone']),
  },
  {
    target: 'aes-256-gcm by nbdkit luks, 1 MiB sequential',
    bound: 8,
    digits: 1,
    measured: ratio(PEERS, ['gcmNbdkitLuks'], LARGE),
  },
  {
    target: 'aes-256-gcm by qemu-nbd luks, 1 MiB sequential',
    bound: 8,
    digits: 1,
    measured: ratio(PEERS, ['gcmQemuLuks'], LARGE),
  },
  {
    target: 'aes-256-gcm by nbdkit luks, 4 KiB random, QD32',
    bound: 2,
    digits: 2,
    measured: ratio(PEERS, ['gcmNbdkitLuks'], SMALL),
  },
  {
    target: 'aes-256-gcm by qemu-nbd luks, 4 KiB random, QD32',
    bound: 2,
    digits: 2,
    measured: ratio(PEERS, ['gcmQemuLuks'], SMALL),
  },
  {
    target: 'aes-256-gcm by nbdkit file in plaintext, every workload',
    bound: 1,
    digits: 2,
    measured: ratio(PEERS, ['gcmNbdkit']),
  },
  {
    target: 'aes-256-ctr by nbdkit file in plaintext, every workload',
    bound: 1,
    digits: 2,
    measured: ratio(PEERS, ['ctrNbdkit']),
  },
  {
    target: 'random overwrites at 90 % full, steady, by a fresh volume',
    bound: 0.6,
    digits: 2,
    measured: (groups) =>
      numbers(
        rowsOf(groups, 'growth', 'Random overwrites in steady state').filter(
          ({ full }) => Math.round(Number(full)) === FULL_PERCENT,
        ),
        'ratio',
        () => '',
      ),
  },
  {
    target: 'throughput during re-encryption, every workload, by the idle volume',
    bound: 0.7,
    digits: 2,
    measured: besideRewriting('throughput'),
  },
  {
    target: 'p99 during re-encryption, every workload, by the idle volume',
    bound: 5,
    atMost: true,
    digits: 2,
    measured: besideRewriting('p99'),
  },
  {
    target: '4 KiB, one at a time, beside 128 requests of 4 MiB of another client: times slower than alone',
    bound: 10,
    atMost: true,
    digits: 1,
    measured: besideGreedy,
  },
  {
    target: 'backup and restore, synced, by cp and sync of the same bytes',
    bound: 0.8,
    digits: 2,
    measured: besideCp('timesSynced'),
  },
  {
    target: 'backup and restore, synced, by cp of the same bytes, which leaves them in the page cache',
    bound: 0.8,
    digits: 2,
    measured: besideCp('timesCp'),
  },
  {
    target: 'resident memory, fixed part, MiB',
    bound: 150,
    atMost: true,
    digits: 0,
    measured: memory('fixed part, MiB'),
  },
  {
    target: 'resident memory for each mapped block, bytes',
    bound: 10,
    atMost: true,
    digits: 1,
    measured: memory('each mapped block of 4 KiB, bytes'),
  },
];

/** The worst measurement of each target decides. */
export function targetTable(groups: Groups): Table {
  return {
    title: 'Targets',
    columns: [
      { key: 'target', label: 'target' },
      { key: 'wanted', label: 'wanted' },
      { key: 'worst', label: 'worst measured' },
      { key: 'where', label: 'where' },
      { key: 'kept', label: 'kept' },
      { key: 'verdict', label: '' },
    ],
    rows: TARGETS.map(({ target, bound, atMost = false, digits, measured }) => {
      const wanted = `${atMost ? '≤' : '≥'} ${bound}`;
      const values = measured(groups);
      if (values.length === 0)
        return { target, wanted, worst: '', where: '', kept: '', verdict: 'not measured' };
      const keeps = ({ value }: Measured): boolean => (atMost ? value <= bound : value >= bound);
      const worst = values.reduce((a, b) => (atMost === a.value < b.value ? b : a));
      return {
        target,
        wanted,
        worst: worst.value.toFixed(digits),
        where: worst.where,
        kept: `${values.filter(keeps).length} of ${values.length}`,
        verdict: keeps(worst) ? 'reached' : '**not reached**',
      };
    }),
  };
}
