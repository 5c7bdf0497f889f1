/**
 * Where the processor time of requests goes, and how many system calls they take: sealbd beside nbdkit,
 * sampled by perf and counted by strace in trials of their own. It says what a target that is not reached is bound by.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Figures, fill, measureWorkload, readAll } from '../../src/cli/bench/fio.js';
import { median } from '../../src/cli/bench/statistics.js';
import { type Workload, workloadNamed } from '../../src/cli/bench/workloads.js';
import { progress, runGroup } from '../group.js';
import { type GroupOptions, type GroupResult, NOT_INSTALLED, type Table } from '../result.js';
import { availablePeers, NBDKIT_LUKS, PLAIN_BAR } from './peers.js';
import { inPlace, wholeVolume } from './place.js';
import { run } from './processes.js';
import { callsOf, NEEDED_NAMES, PART_NAMES, sharesOf } from './samples.js';
import { isInstalled, type Place, type Server, startSealbd } from './servers.js';

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
/** In this order: the random writes before the last one are no good for a sequential read. */
const PROFILED = [WRITE, READ, '4 KiB random read, QD32', SCATTER, SCATTERED] as const;
const PEERS = [PLAIN_BAR, NBDKIT_LUKS];

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
  const { programs, directory } = place;
  const file = join(directory, 'perf.data');
  const options = wholeVolume(place, server);
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
  const { programs, directory } = place;
  const file = join(directory, 'strace.txt');
  const tracer = programs.spawn('strace', ['-f', '-q', '-c', '-o', file, '-p', String(server.pid)], 'ignore');
  const ended = new Promise<void>((resolve) => tracer.once('close', () => resolve()));
  await new Promise((resolve) => setTimeout(resolve, LEAD_MS));
  const figures = await measureWorkload(wholeVolume(place, server), workload, timeMs);
  tracer.kill('SIGINT');
  await ended;
  const counts = [...callsOf(readFileSync(file, 'utf8'))];
  return new Map(counts.map(([name, calls]) => [name, calls / mibOf(figures)]));
}

async function profile(place: Place, server: Server, timeMs: number): Promise<Profile[]> {
  const options = wholeVolume(place, server);
  const profiles: Profile[] = [];
  for (const name of PROFILED) {
    await readAll(options, FILL_TIMEOUT_MS);
    const workload = workloadNamed(name);
    const sampled = await sample(place, server, workload, timeMs);
    profiles.push({ ...sampled, calls: await count(place, server, workload, timeMs) });
  }
  return profiles;
}

async function profileAll(
  place: Place,
  servers: readonly Server[],
  rounds: number,
  timeMs: number,
): Promise<Profile[]> {
  const profiles: Profile[] = [];
  for (const server of servers) await fill(wholeVolume(place, server), true, FILL_TIMEOUT_MS);
  for (let round = 1; round <= rounds; round++) {
    progress(`profile: round ${round} of ${rounds}`);
    for (const server of servers) profiles.push(...(await profile(place, server, timeMs)));
  }
  for (const server of servers) await server.stop();
  return profiles;
}

function tablesOf(workload: string, profiles: readonly Profile[]): Table[] {
  const servers = [...new Set(profiles.map(({ server }) => server))];
  const columns = [
    { key: 'what', label: 'what' },
    ...servers.map((server) => ({ key: server, label: server, digits: 1 })),
  ];
  const row = (what: string, of: (profile: Profile) => number) => ({
    what,
    ...Object.fromEntries(
      servers.map((server) => [server, median(profiles.filter((each) => each.server === server).map(of))]),
    ),
  });
  const sum = ({ parts }: Profile, names: readonly string[]): number =>
    names.reduce((total, name) => total + parts.get(name)!, 0);
  const calls = [...new Set(profiles.flatMap((each) => [...each.calls.keys()]))]
    .filter((name) => profiles.some((each) => (each.calls.get(name) ?? 0) >= CALLS_MIN))
    .sort();
  return [
    {
      title: `${workload}: processor time, µs a MiB`,
      columns,
      rows: [
        ...PART_NAMES.map((name) => row(name, ({ parts }) => parts.get(name)!)),
        row('all of the server', (each) => sum(each, PART_NAMES)),
        row('of that, sockets, files and cipher', (each) => sum(each, NEEDED_NAMES)),
        row('client', ({ clientUs }) => clientUs),
      ],
    },
    {
      title: `${workload}: system calls a MiB`,
      columns: columns.map((column) => ({ ...column, digits: 2 })),
      rows: [
        ...calls.map((name) => row(name, (each) => each.calls.get(name) ?? 0)),
        row('all', (each) => [...each.calls.values()].reduce((total, count) => total + count, 0)),
      ],
    },
  ];
}

async function measure(options: GroupOptions): Promise<GroupResult> {
  const missing = ['perf', 'strace'].filter((name) => !isInstalled(name));
  if (missing.length > 0)
    return { notes: [`Not measured: ${missing.join(' and ')} ${NOT_INSTALLED}.`], tables: [] };
  const peers = availablePeers().peers.filter(({ name }) => PEERS.includes(name));
  const absent = PEERS.filter((name) => !peers.some((peer) => peer.name === name));
  const sizeBytes = (options.quick ? 32 : 1024) * MIB;
  const rounds = options.quick ? 1 : options.rounds;
  const timeMs = options.quick ? 200 : 3000;
  const profiles = await inPlace(options, sizeBytes, async (place) => {
    const servers: Server[] = [await startSealbd(place, 'sealbd', 'aes-256-gcm', '')];
    for (const peer of peers) servers.push(await peer.start(place));
    return profileAll(place, servers, rounds, timeMs);
  });
  return {
    notes: [
      `Volumes of ${sizeBytes / MIB} MiB, in the page cache; medians of ${rounds} round(s). perf takes ${SAMPLES_PER_SECOND} samples a second of every thread of the server; their shares of its processor time, which the kernel counted in the same trial, are given for each MiB that the client moved. perf itself takes part of the machine: compare columns, not with other tables.`,
      'A sample belongs to the first part whose functions are on its stack. `file: write` holds the allocation of pages and extents, `socket: send` on loopback much of what the receiver gets. `program` is JavaScript, its runtime and libuv, or the code of the other server, its cipher included.',
      'strace counts in trials of their own, which it slows down: a server that waits more often makes more calls that wait.',
      ...absent.map((name) => `${name}: ${NOT_INSTALLED}.`),
    ],
    tables: PROFILED.flatMap((name) =>
      tablesOf(
        name,
        profiles.filter(({ workload }) => workload === name),
      ),
    ),
  };
}

await runGroup(measure);
