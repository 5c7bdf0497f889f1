/**
 * Where the processor time of large requests goes, and how many system calls they take: sealbd beside nbdkit's plaintext,
 * sampled by perf and counted by strace in trials of their own. It says what a target that is not reached is bound by.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FIO_MISSING, type Figures, fill, measureWorkload, readAll } from '../../src/cli/bench/fio.js';
import { median } from '../../src/cli/bench/statistics.js';
import { type Workload, workloadNamed } from '../../src/cli/bench/workloads.js';
import { progress, runGroup } from '../group.js';
import type { GroupOptions, GroupResult, Table } from '../result.js';
import { availablePeers, PLAIN_BAR } from './peers.js';
import { Programs, run } from './processes.js';
import { callsOf, NEEDED_NAMES, PART_NAMES, sharesOf } from './samples.js';
import { isInstalled, type Place, type Server, startSealbd } from './servers.js';

const ROOT = fileURLToPath(new URL('../../../..', import.meta.url));
const MIB = 2 ** 20;
const FILL_TIMEOUT_MS = 240_000;
const TOOL_TIMEOUT_MS = 120_000;
/** Not a divisor of anything that happens at regular times. */
const SAMPLES_PER_SECOND = 1997;
/** A tool attaches before the load is there, and lets go before it ends. */
const LEAD_MS = 500;
/** System calls that are rarer than this a MiB are left out. */
const CALLS_MIN = 0.01;

const WRITE = '1 MiB sequential write, QD8';
const READ = '1 MiB sequential read, QD8';
const SCATTERED = '1 MiB sequential read after random writes, QD8';
const SCATTER = '4 KiB random write, QD32';
const PROFILED = [WRITE, READ, SCATTERED] as const;

interface Profile {
  readonly workload: string;
  readonly server: string;
  /** µs a MiB, of each part. */
  readonly parts: ReadonlyMap<string, number>;
  readonly clientUs: number;
  /** Calls a MiB. */
  readonly calls: ReadonlyMap<string, number>;
}

const mibOf = ({ bytes }: Figures): number => bytes / MIB;

/** Samples the server while the workload runs; the time is measured in the same trial. */
async function sample(
  place: Place,
  server: Server,
  workload: Workload,
  timeMs: number,
): Promise<Omit<Profile, 'calls'>> {
  const { programs, directory, sizeBytes } = place;
  const file = join(directory, 'perf.data');
  const options = { uri: server.uri, sizeBytes, signal: programs.signal };
  const record = ['record', '-q', '-F', String(SAMPLES_PER_SECOND), '--call-graph', 'fp', '-o', file];
  const before = server.usage();
  const [figures] = await Promise.all([
    measureWorkload(options, workload, timeMs + 2 * LEAD_MS),
    run(
      programs,
      'perf',
      [...record, '-p', String(server.pid), '--', 'sleep', String(timeMs / 1000)],
      TOOL_TIMEOUT_MS,
    ),
  ]);
  const us = ((server.usage().cpuSeconds - before.cpuSeconds) * 1e6) / mibOf(figures);
  const { stdout } = await run(programs, 'perf', ['script', '-i', file, '-F', 'ip,sym,dso'], TOOL_TIMEOUT_MS);
  const parts = new Map([...sharesOf(stdout)].map(([name, share]) => [name, share * us]));
  const clientUs = (figures.clientCpuUs * figures.operations) / mibOf(figures);
  return { workload: workload.name, server: server.name, parts, clientUs };
}

/** Counts system calls while the workload runs from its beginning to its end: tracing slows it down, but adds none. */
async function count(
  place: Place,
  server: Server,
  workload: Workload,
  timeMs: number,
): Promise<Profile['calls']> {
  const { programs, directory, sizeBytes } = place;
  const file = join(directory, 'strace.txt');
  const tracer = programs.spawn('strace', ['-f', '-q', '-c', '-o', file, '-p', String(server.pid)], 'ignore');
  const ended = new Promise<void>((resolve) => tracer.once('close', () => resolve()));
  await new Promise((resolve) => setTimeout(resolve, LEAD_MS));
  const figures = await measureWorkload(
    { uri: server.uri, sizeBytes, signal: programs.signal },
    workload,
    timeMs,
  );
  tracer.kill('SIGINT');
  await ended;
  const counts = [...callsOf(readFileSync(file, 'utf8'))];
  return new Map(counts.map(([name, calls]) => [name, calls / mibOf(figures)]));
}

async function profile(place: Place, server: Server, timeMs: number): Promise<Profile[]> {
  const options = { uri: server.uri, sizeBytes: place.sizeBytes, signal: place.programs.signal };
  const profiles: Profile[] = [];
  for (const name of PROFILED) {
    if (name === SCATTERED) await measureWorkload(options, workloadNamed(SCATTER), timeMs);
    await readAll(options, FILL_TIMEOUT_MS);
    const workload = workloadNamed(name);
    const sampled = await sample(place, server, workload, timeMs);
    profiles.push({ ...sampled, calls: await count(place, server, workload, timeMs) });
  }
  return profiles;
}

interface Column {
  readonly key: string;
  readonly label: string;
  readonly profiles: readonly Profile[];
}

function columnsOf(profiles: readonly Profile[]): Column[] {
  const short = { [WRITE]: 'write', [READ]: 'read', [SCATTERED]: 'read after random writes' };
  const servers = [...new Set(profiles.map(({ server }) => server))];
  return PROFILED.flatMap((workload) =>
    servers.map((server) => ({
      key: `${workload}, ${server}`,
      label: `${short[workload]}: ${server}`,
      profiles: profiles.filter((each) => each.workload === workload && each.server === server),
    })),
  );
}

const row = (what: string, columns: readonly Column[], of: (profile: Profile) => number) => ({
  what,
  ...Object.fromEntries(columns.map(({ key, profiles }) => [key, median(profiles.map(of))])),
});

function tableOf(title: string, digits: number, columns: readonly Column[], rows: Table['rows']): Table {
  const figures = columns.map(({ key, label }) => ({ key, label, digits }));
  return { title, columns: [{ key: 'what', label: 'what' }, ...figures], rows };
}

function tablesOf(profiles: readonly Profile[]): Table[] {
  const columns = columnsOf(profiles);
  const sum = ({ parts }: Profile, names: readonly string[]): number =>
    names.reduce((total, name) => total + parts.get(name)!, 0);
  const names = [...new Set(profiles.flatMap(({ calls }) => [...calls.keys()]))].filter((name) =>
    profiles.some(({ calls }) => (calls.get(name) ?? 0) >= CALLS_MIN),
  );
  return [
    tableOf('Where the processor time goes, µs a MiB', 0, columns, [
      ...PART_NAMES.map((name) => row(name, columns, ({ parts }) => parts.get(name)!)),
      row('all of the server', columns, (each) => sum(each, PART_NAMES)),
      row('of that, sockets, files and cipher', columns, (each) => sum(each, NEEDED_NAMES)),
      row('client', columns, ({ clientUs }) => clientUs),
    ]),
    tableOf('System calls a MiB', 2, columns, [
      ...names.sort().map((name) => row(name, columns, ({ calls }) => calls.get(name) ?? 0)),
      row('all', columns, ({ calls }) => [...calls.values()].reduce((total, each) => total + each, 0)),
    ]),
  ];
}

async function measure(options: GroupOptions): Promise<GroupResult> {
  if (!isInstalled('fio')) throw new Error(FIO_MISSING);
  const missing = ['perf', 'strace'].filter((name) => !isInstalled(name));
  if (missing.length > 0)
    return { notes: [`Not measured: ${missing.join(' and ')} not installed.`], tables: [] };
  const bar = availablePeers().peers.filter(({ name }) => name === PLAIN_BAR);
  const directory = mkdtempSync(join(options.directory, 'sealbd-bench-'));
  const programs = new Programs();
  process.once('exit', () => rmSync(directory, { recursive: true, force: true, maxRetries: 5 }));
  const place: Place = { programs, root: ROOT, directory, sizeBytes: (options.quick ? 32 : 1024) * MIB };
  const rounds = options.quick ? 1 : options.rounds;
  const timeMs = options.quick ? 200 : 3000;
  const servers: Server[] = [];
  const profiles: Profile[] = [];
  try {
    servers.push(await startSealbd(place, 'sealbd', 'aes-256-gcm', ''));
    for (const peer of bar) servers.push(await peer.start(place));
    for (const { uri } of servers)
      await fill({ uri, sizeBytes: place.sizeBytes, signal: programs.signal }, true, FILL_TIMEOUT_MS);
    for (let round = 1; round <= rounds; round++) {
      progress(`profile: round ${round} of ${rounds}`);
      for (const server of servers) profiles.push(...(await profile(place, server, timeMs)));
    }
    for (const server of servers) await server.stop();
  } finally {
    await programs.end();
  }
  return {
    notes: [
      `Volumes of ${place.sizeBytes / MIB} MiB, in the page cache; medians of ${rounds} round(s). perf takes ${SAMPLES_PER_SECOND} samples a second of every thread of the server; their shares of its processor time, which the kernel counted in the same trial, are given for each MiB that the client moved. perf itself takes part of the machine: compare columns, not with other tables.`,
      'A sample belongs to the first part whose functions are on its stack. `file: write` holds the allocation of pages and extents, `socket: send` on loopback much of what the receiver gets. `program` is JavaScript, its runtime and libuv, or the code of the other server.',
      'strace counts in trials of their own, which it slows down: a server that waits more often makes more calls that wait.',
      ...(bar.length === 0 ? [`${PLAIN_BAR} is not installed.`] : []),
    ],
    tables: tablesOf(profiles),
  };
}

await runGroup(measure);
