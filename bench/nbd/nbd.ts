/**
 * The daemon over NBD: the same volume as aes-256-gcm, as aes-256-ctr and as `none`, and nbdkit's file plugin in
 * plaintext, on one medium. Trials are interleaved and repeated; what counts are ratios within a round.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { progress, runGroup } from '../group.js';
import type { Cell, GroupOptions, GroupResult, Table } from '../result.js';
import { median } from '../statistics.js';
import { fill, measureRow } from './fio.js';
import { Programs } from './processes.js';
import { QUICK_ROWS, ROWS, type Row } from './rows.js';
import { isInstalled, type Place, type Server, startNbdkit, startSealbd } from './servers.js';

const ROOT = fileURLToPath(new URL('../../../..', import.meta.url));
const MIB = 2 ** 20;
const PEER = 'nbdkit file';

interface Trial extends Readonly<Record<string, Cell>> {
  readonly row: string;
  readonly server: string;
  readonly round: number;
  readonly iops: number;
  readonly mibPerS: number;
  readonly p50us: number;
  readonly p99us: number;
  readonly serverCpuUs: number;
}

interface Plan {
  readonly place: Place;
  readonly rows: readonly Row[];
  readonly rounds: number;
  readonly timeMs: number;
}

async function startServers(place: Place): Promise<Server[]> {
  const servers: Server[] = [];
  for (const cipher of ['aes-256-gcm', 'aes-256-ctr', 'none']) {
    servers.push(await startSealbd(place, `sealbd ${cipher}`, cipher, ''));
  }
  if (isInstalled('nbdkit')) servers.push(await startNbdkit(place, PEER));
  return servers;
}

/** One round: every volume is filled, then every row runs on each server, in an order that changes by round. */
async function round(
  plan: Plan,
  servers: readonly Server[],
  index: number,
  timeMs: number,
): Promise<Trial[]> {
  const { programs, sizeBytes } = plan.place;
  const turn = index % servers.length;
  const order = [...servers.slice(turn), ...servers.slice(0, turn)];
  if (index % 2 === 1) order.reverse();
  for (const server of order) await fill(programs, server.uri, sizeBytes, false);
  const trials: Trial[] = [];
  for (const row of plan.rows) {
    for (const server of order) {
      const before = server.cpuSeconds();
      const figures = await measureRow(programs, server.uri, row, sizeBytes, timeMs);
      const serverCpuUs = ((server.cpuSeconds() - before) * 1e6) / figures.operations;
      const { iops, mibPerS, p50us, p99us } = figures;
      trials.push({
        row: row.name,
        server: server.name,
        round: index,
        iops,
        mibPerS,
        p50us,
        p99us,
        serverCpuUs,
      });
    }
  }
  return trials;
}

async function runRounds(plan: Plan): Promise<Trial[]> {
  const { place, rounds, timeMs } = plan;
  const servers = await startServers(place);
  const trials: Trial[] = [];
  try {
    for (const server of servers) {
      progress(`nbd: filling and verifying ${server.name}`);
      await fill(place.programs, server.uri, place.sizeBytes, true);
    }
    progress('nbd: warm-up round');
    await round(plan, servers, 0, timeMs / 4);
    for (let index = 1; index <= rounds; index++) {
      progress(`nbd: round ${index} of ${rounds}`);
      trials.push(...(await round(plan, servers, index, timeMs)));
    }
  } finally {
    for (const server of servers) await server.stop();
  }
  return trials;
}

/** Throughput of `server` by that of `to`, round by round. */
function ratios(trials: readonly Trial[], row: string, server: string, to: string): number[] {
  const of = (who: string): Trial[] => trials.filter((trial) => trial.row === row && trial.server === who);
  return of(server).map((trial) => {
    const other = of(to).find(({ round: same }) => same === trial.round);
    return other === undefined ? Number.NaN : trial.iops / other.iops;
  });
}

const COMPARISONS = [
  { key: 'gcmNone', label: 'gcm / none', server: 'sealbd aes-256-gcm', to: 'sealbd none' },
  { key: 'ctrNone', label: 'ctr / none', server: 'sealbd aes-256-ctr', to: 'sealbd none' },
  { key: 'gcmPeer', label: 'gcm / nbdkit file', server: 'sealbd aes-256-gcm', to: PEER },
] as const;

function ratioTable(rows: readonly Row[], trials: readonly Trial[]): Table {
  const present = new Set(trials.map((trial) => trial.server));
  const comparisons = COMPARISONS.filter(({ server, to }) => present.has(server) && present.has(to));
  return {
    title: 'Ratios over NBD',
    columns: [
      { key: 'row', label: 'workload' },
      ...comparisons.flatMap(({ key, label }) => [
        { key, label, digits: 2 },
        { key: `${key}Range`, label: 'range' },
      ]),
    ],
    rows: rows.map(({ name }) => {
      const cells: Record<string, Cell> = { row: name };
      for (const { key, server, to } of comparisons) {
        const values = ratios(trials, name, server, to);
        cells[key] = median(values);
        cells[`${key}Range`] = `${Math.min(...values).toFixed(2)}–${Math.max(...values).toFixed(2)}`;
      }
      return cells;
    }),
  };
}

function figureTable(rows: readonly Row[], trials: readonly Trial[]): Table {
  const servers = [...new Set(trials.map((trial) => trial.server))].sort();
  const cells = rows.flatMap(({ name }) =>
    servers.map((server) => {
      const of = trials.filter((trial) => trial.row === name && trial.server === server);
      const middle = (key: 'iops' | 'mibPerS' | 'p50us' | 'p99us' | 'serverCpuUs'): number =>
        median(of.map((trial) => trial[key]));
      return {
        row: name,
        server,
        iops: middle('iops'),
        mibPerS: middle('mibPerS'),
        p50us: middle('p50us'),
        p99us: middle('p99us'),
        serverCpuUs: middle('serverCpuUs'),
      };
    }),
  );
  return {
    title: 'Figures over NBD (medians of the rounds)',
    columns: [
      { key: 'row', label: 'workload' },
      { key: 'server', label: 'server' },
      { key: 'iops', label: 'requests/s', digits: 0 },
      { key: 'mibPerS', label: 'MiB/s', digits: 0 },
      { key: 'p50us', label: 'p50 µs', digits: 0 },
      { key: 'p99us', label: 'p99 µs', digits: 0 },
      { key: 'serverCpuUs', label: 'server CPU µs/request', digits: 1 },
    ],
    rows: cells,
  };
}

async function measure(options: GroupOptions): Promise<GroupResult> {
  if (!isInstalled('fio')) throw new Error('fio is not installed: the nbd group needs it');
  const directory = mkdtempSync(join(options.directory, 'sealbd-bench-'));
  const programs = new Programs();
  // Also where a signal ends the run: servers that were killed may take a moment to let go.
  process.once('exit', () => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
  const sizeBytes = (options.quick ? 32 : 1024) * MIB;
  const rows = options.quick ? QUICK_ROWS : ROWS;
  const rounds = options.quick ? 1 : options.rounds;
  const timeMs = options.quick ? 100 : 2000;
  try {
    const place: Place = { programs, root: ROOT, directory, sizeBytes };
    const trials = await runRounds({ place, rows, rounds, timeMs });
    const missing = isInstalled('nbdkit') ? [] : ['nbdkit is not installed: its column is missing.'];
    return {
      notes: [
        `Every server is a process of its own with one volume of ${sizeBytes / MIB} MiB, started with its defaults, and each volume was written and read back with checksums once before anything was timed.`,
        `${rounds} rounds after one for warming up, ${timeMs} ms a trial; within a round every workload runs on each server in turn, and the order changes by round. A ratio is taken within a round; the table gives the median and the range of the rounds.`,
        'The page cache is warm: data is written, and read again, in memory, and only flushes wait for the medium. fio runs on the same machine and takes its share of the cores.',
        ...missing,
      ],
      tables: [
        ratioTable(rows, trials),
        figureTable(rows, trials),
        { title: 'Single trials over NBD', columns: [], rows: trials, raw: true },
      ],
    };
  } finally {
    await programs.end();
  }
}

await runGroup(measure);
