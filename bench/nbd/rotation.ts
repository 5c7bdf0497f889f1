/**
 * What clients notice of `key rotate --reencrypt`: each workload runs on an idle volume, and again while all of the volume
 * is rewritten under a new DEK. A trial counts only if the rewriting was still under way at its end.
 */
import { type Figures, type FioOptions, fill, measureWorkload } from '../../src/cli/bench/fio.js';
import { median, rangeOf } from '../../src/cli/bench/statistics.js';
import { type Workload, workloadNamed } from '../../src/cli/bench/workloads.js';
import { progress, runGroup } from '../group.js';
import type { Cell, GroupOptions, GroupResult, Table } from '../result.js';
import { inPlace, wholeVolume } from './place.js';
import { type Place, type Sealbd, startSealbd } from './servers.js';

const MIB = 2 ** 20;
const JOB_POLL_MS = 100;
const FILL_TIMEOUT_MS = 240_000;
const JOB_TIMEOUT_MS = 300_000;
const NAMES = [
  '4 KiB random read, QD32',
  '4 KiB random write, QD32',
  '4 KiB random read 70 %, write 30 %, QD32',
  '1 MiB sequential read, QD8',
  '1 MiB sequential write, QD8',
];

interface Job {
  readonly id: string;
  readonly state: string;
  readonly doneBytes: number;
  readonly error: { readonly message: string } | null;
}

interface Trial extends Readonly<Record<string, Cell>> {
  readonly row: string;
  readonly round: number;
  readonly idleIops: number;
  readonly busyIops: number;
  readonly idleP99us: number;
  readonly busyP99us: number;
  /** Rewritten meanwhile. */
  readonly rewrittenMibPerS: number;
}

/** What is overwritten need not be rewritten: sequential writes keep to an eighth, so that there is work left. */
function regionOf({ sizeBytes }: Place, { rw }: Workload): number {
  return rw === 'write' ? sizeBytes / 8 : sizeBytes;
}

function targetOf(place: Place, server: Sealbd, row: Workload): FioOptions {
  return { ...wholeVolume(place, server), sizeBytes: regionOf(place, row) };
}

async function jobs(server: Sealbd): Promise<Job[]> {
  return JSON.parse(await server.command('job', 'list', '--json')) as Job[];
}

async function jobOf(server: Sealbd, id: string): Promise<Job> {
  const job = (await jobs(server)).find((each) => each.id === id);
  if (job === undefined) throw new Error(`job ${id} is not listed`);
  return job;
}

async function ended(server: Sealbd, id: string): Promise<void> {
  const deadline = performance.now() + JOB_TIMEOUT_MS;
  for (;;) {
    const { state, error } = await jobOf(server, id);
    if (state === 'done') return;
    if (state !== 'running') throw new Error(`the rewriting ended as ${state}: ${error?.message}`);
    if (performance.now() > deadline) throw new Error('the rewriting does not end');
    await new Promise((resolve) => setTimeout(resolve, JOB_POLL_MS));
  }
}

async function whileRewriting(
  place: Place,
  server: Sealbd,
  row: Workload,
  timeMs: number,
): Promise<{ figures: Figures; rewrittenMibPerS: number }> {
  const rotated = await server.command('key', 'rotate', 'bench', '--reencrypt', '--detach', '--json');
  const { job } = JSON.parse(rotated) as { job: Job };
  const before = await jobOf(server, job.id);
  const started = performance.now();
  const figures = await measureWorkload(targetOf(place, server, row), row, timeMs);
  const after = await jobOf(server, job.id);
  if (after.state !== 'running') throw new Error(`${row.name}: the rewriting was over before the workload`);
  const seconds = (performance.now() - started) / 1000;
  await ended(server, job.id);
  return { figures, rewrittenMibPerS: (after.doneBytes - before.doneBytes) / MIB / seconds };
}

async function measureTrials(
  place: Place,
  rows: readonly Workload[],
  rounds: number,
  timeMs: number,
): Promise<Trial[]> {
  const server = await startSealbd(place, 'sealbd aes-256-gcm', 'aes-256-gcm', '');
  const trials: Trial[] = [];
  try {
    progress('rotation: filling and verifying');
    await fill(wholeVolume(place, server), true, FILL_TIMEOUT_MS);
    for (let round = 1; round <= rounds; round++) {
      progress(`rotation: round ${round} of ${rounds}`);
      for (const row of rows) {
        const idle = await measureWorkload(targetOf(place, server, row), row, timeMs);
        const { figures, rewrittenMibPerS } = await whileRewriting(place, server, row, timeMs);
        trials.push({
          ...{ row: row.name, round, rewrittenMibPerS },
          ...{ idleIops: idle.iops, busyIops: figures.iops, idleP99us: idle.p99us, busyP99us: figures.p99us },
        });
      }
    }
  } finally {
    await server.stop();
  }
  return trials;
}

function table(rows: readonly Workload[], trials: readonly Trial[]): Table {
  return {
    title: 'Clients during re-encryption',
    columns: [
      { key: 'row', label: 'workload' },
      { key: 'throughput', label: 'throughput / idle', digits: 2 },
      { key: 'range', label: 'range' },
      { key: 'p99', label: 'p99 / idle p99', digits: 2 },
      { key: 'p99Range', label: 'range' },
      { key: 'idleIops', label: 'idle requests/s', digits: 0 },
      { key: 'busyIops', label: 'meanwhile requests/s', digits: 0 },
      { key: 'idleP99us', label: 'idle p99 µs', digits: 0 },
      { key: 'busyP99us', label: 'meanwhile p99 µs', digits: 0 },
      { key: 'rewrittenMibPerS', label: 'rewritten MiB/s', digits: 0 },
    ],
    rows: rows.map(({ name }) => {
      const of = trials.filter((trial) => trial.row === name);
      const throughput = of.map((trial) => trial.busyIops / trial.idleIops);
      const p99 = of.map((trial) => trial.busyP99us / trial.idleP99us);
      const middle = (key: Exclude<keyof Trial, 'row'>): number =>
        median(of.map((trial) => Number(trial[key])));
      return {
        row: name,
        ...{
          throughput: median(throughput),
          range: rangeOf(throughput, 2),
          p99: median(p99),
          p99Range: rangeOf(p99, 2),
        },
        ...{ idleIops: middle('idleIops'), busyIops: middle('busyIops') },
        ...{ idleP99us: middle('idleP99us'), busyP99us: middle('busyP99us') },
        rewrittenMibPerS: middle('rewrittenMibPerS'),
      };
    }),
  };
}

async function measure(options: GroupOptions): Promise<GroupResult> {
  const sizeBytes = (options.quick ? 1024 : 2048) * MIB;
  const rows = NAMES.slice(0, options.quick ? 1 : undefined).map(workloadNamed);
  const rounds = options.quick ? 1 : options.rounds;
  const timeMs = options.quick ? 100 : 3000;
  return inPlace(options, sizeBytes, async (place) => {
    const trials = await measureTrials(place, rows, rounds, timeMs);
    return {
      notes: [
        `One aes-256-gcm volume of ${sizeBytes / MIB} MiB, full, with the daemon's defaults. Each workload runs for ${timeMs} ms on the idle volume and then for as long while \`key rotate --reencrypt\` rewrites all of it (sequential writes keep to an eighth of the volume, which therefore needs no rewriting); the rewriting is at work during all of the second trial, or the run fails.`,
        `${rounds} rounds; ratios are taken within a pair of trials, and the table gives median and range.`,
        'Rewriting gives way to clients: after each piece of work it rests three times as long as that took while requests come.',
      ],
      tables: [table(rows, trials), { title: 'Single trials', columns: [], rows: trials, raw: true }],
    };
  });
}

await runGroup(measure);
