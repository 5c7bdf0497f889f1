/**
 * The daemon over NBD: the same volume as aes-256-gcm, as aes-256-ctr and as `none`, beside nbdkit and qemu-nbd, in
 * plaintext and with LUKS, on one medium. Trials are interleaved and repeated; what counts are ratios within a round.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fill, measureWorkload, readAll } from '../../src/cli/bench/fio.js';
import { orderOf, type Trial } from '../../src/cli/bench/trials.js';
import { WORKLOADS, type Workload } from '../../src/cli/bench/workloads.js';
import { TRIALS_TITLE } from '../charts.js';
import { progress, runGroup } from '../group.js';
import type { GroupOptions, GroupResult } from '../result.js';
import { figureTable, peerTable, penaltyTable, processorTable } from './nbd-tables.js';
import { availablePeers, type Peer } from './peers.js';
import { inPlace, wholeVolume } from './place.js';
import { isInstalled, type Place, type Server, startSealbd } from './servers.js';

const MIB = 2 ** 20;
/** Bounds a fill, and the reading back of it, of the slowest peer: 1 GiB at 8 MiB/s. */
const FILL_TIMEOUT_MS = 240_000;
/** Peers that take longer are filled once: they write in place, so that nothing is different before a round. */
const FILL_AGAIN_MS = 15_000;

export interface NbdTrial extends Trial {
  /** That the client read and wrote. */
  readonly bytes: number;
  readonly serverCpuUs: number;
  readonly clientCpuUs: number;
  /** What the server fetched from the medium meanwhile. */
  readonly mediumReadBytes: number;
  readonly mediumWrittenBytes: number;
  readonly residentBytes: number;
}

interface Subject {
  readonly server: Server;
  /** Filled anew before every round. */
  fillAgain: boolean;
}

interface Plan {
  readonly place: Place;
  readonly peers: readonly Peer[];
  readonly workloads: readonly Workload[];
  readonly rounds: number;
  readonly timeMs: number;
}

async function startServers(place: Place, peers: readonly Peer[], servers: Server[]): Promise<void> {
  for (const cipher of ['aes-256-gcm', 'aes-256-ctr', 'none']) {
    servers.push(await startSealbd(place, `sealbd ${cipher}`, cipher, ''));
  }
  for (const peer of peers) servers.push(await peer.start(place));
}

/** Writes and reads back with checksums, and proves the size. */
async function prepare(place: Place, server: Server): Promise<Subject> {
  const { sizeBytes } = place;
  const options = wholeVolume(place, server);
  const start = performance.now();
  await fill(options, true, FILL_TIMEOUT_MS);
  const elapsedMs = performance.now() - start;
  if (isInstalled('nbdinfo')) {
    const { stdout, stderr } = spawnSync('nbdinfo', ['--size', server.uri], { encoding: 'utf8' });
    if (Number(stdout) !== sizeBytes) throw new Error(`${server.name} has ${stdout || stderr} bytes`);
  }
  return { server, fillAgain: server.name.startsWith('sealbd') || elapsedMs < FILL_AGAIN_MS };
}

/** One round: volumes are filled and read, then every workload runs on each server, in an order that changes by round. */
async function round(
  plan: Plan,
  subjects: readonly Subject[],
  index: number,
  timeMs: number,
): Promise<NbdTrial[]> {
  const { directory } = plan.place;
  const order = orderOf(subjects, index);
  const optionsOf = ({ server }: Subject) => wholeVolume(plan.place, server);
  for (const subject of order) {
    if (subject.fillAgain) await fill(optionsOf(subject), false, FILL_TIMEOUT_MS);
    await readAll(optionsOf(subject), FILL_TIMEOUT_MS);
  }
  // What was written so far must not be on its way to the medium while something else is timed.
  spawnSync('sync', ['-f', directory]);
  const trials: NbdTrial[] = [];
  for (const workload of plan.workloads) {
    for (const subject of order) {
      const before = subject.server.usage();
      const { operations, bytes, ...figures } = await measureWorkload(optionsOf(subject), workload, timeMs);
      const after = subject.server.usage();
      trials.push({
        workload: workload.name,
        subject: subject.server.name,
        round: index,
        ...figures,
        serverCpuUs: ((after.cpuSeconds - before.cpuSeconds) * 1e6) / operations,
        mediumReadBytes: after.mediumReadBytes - before.mediumReadBytes,
        mediumWrittenBytes: after.mediumWrittenBytes - before.mediumWrittenBytes,
        bytes,
        residentBytes: after.residentBytes,
      });
    }
  }
  return trials;
}

async function runRounds(plan: Plan): Promise<NbdTrial[]> {
  const { place, rounds, timeMs } = plan;
  const servers: Server[] = [];
  const trials: NbdTrial[] = [];
  try {
    await startServers(place, plan.peers, servers);
    const subjects: Subject[] = [];
    for (const server of servers) {
      progress(`nbd: filling and verifying ${server.name}`);
      subjects.push(await prepare(place, server));
    }
    progress('nbd: warm-up round');
    await round(plan, subjects, 0, timeMs / 4);
    for (let index = 1; index <= rounds; index++) {
      progress(`nbd: round ${index} of ${rounds}`);
      trials.push(...(await round(plan, subjects, index, timeMs)));
    }
  } finally {
    for (const server of servers) await server.stop();
  }
  return trials;
}

/** All volumes must fit into the page cache, with as much again for what lies in logs and for the rest. */
function assertMemory(servers: number, sizeBytes: number): void {
  const kib = Number(/^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))![1]);
  const needed = servers * sizeBytes * 2;
  if (kib * 1024 < needed) {
    throw new Error(
      `${servers} volumes need ${needed / MIB} MiB of free memory to stay cached; there are ${Math.round(kib / 1024)}`,
    );
  }
}

async function measure(options: GroupOptions): Promise<GroupResult> {
  const { peers, missing } = availablePeers();
  const sizeBytes = (options.quick ? 32 : 1024) * MIB;
  assertMemory(peers.length + 3, sizeBytes);
  const rounds = options.quick ? 1 : options.rounds;
  const timeMs = options.quick ? 100 : 2000;
  return inPlace(options, sizeBytes, async (place) => {
    const trials = await runRounds({ place, peers, workloads: WORKLOADS, rounds, timeMs });
    const fetched = Math.max(...trials.map(({ mediumReadBytes }) => mediumReadBytes));
    return {
      notes: [
        ...missing,
        `Every server is a process of its own with one volume of ${sizeBytes / MIB} MiB, started with its defaults (qemu-nbd with \`-t --shared=8 --cache=writeback\`), and each volume was written and read back with checksums once before anything was timed. LUKS images are LUKS1 with AES-256-XTS, as qemu-img makes them: no authentication.`,
        `${rounds} round(s) after one for warming up, ${timeMs} ms a trial; within a round every workload runs on each server in turn, and the order changes by round. A ratio is taken within a round; the table gives the median and the range of the rounds.`,
        `All caches are warm: before a round every volume is written and read whole, and the medium is in step (\`sync -f\`). Only flushes wait for the medium. In no trial did a server fetch more than ${(fetched / MIB).toFixed(1)} MiB from the medium. Volumes of peers that take more than ${FILL_AGAIN_MS / 1000} s to fill and verify are not written anew: they overwrite in place, and only read.`,
        'Processor time: that of the server’s process and of fio; what the kernel writes to the medium afterwards is in neither. `At best` is the ratio where all cores are busy with either server, and the limit of what a better division of labour can reach; a server may be below it where it waits. Bytes for the medium are pages made dirty (`write_bytes` of /proc/PID/io) by bytes that the client moved: a server that overwrites in place dirties a page once until it is written, a log writes every byte.',
        'Every server was alive, as the same process, after each of its trials, and no sealbd logged an error. fio runs on the same machine and takes its share of the cores.',
      ],
      tables: [
        penaltyTable(WORKLOADS, trials),
        peerTable(WORKLOADS, trials),
        figureTable(WORKLOADS, trials),
        processorTable(WORKLOADS, trials),
        {
          title: TRIALS_TITLE,
          columns: [],
          rows: trials.map((trial) => ({ ...trial })),
          raw: true,
        },
      ],
    };
  });
}

await runGroup(measure);
