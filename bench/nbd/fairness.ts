/**
 * What a client with small requests notices of one that asks for much: 4 KiB requests, one at a time, alone and beside another
 * client with 128 requests of 4 MiB under way. A trial counts only if the other client was at work during all of it.
 */
import { type FioOptions, fill, measureWorkload } from '../../src/cli/bench/fio.js';
import { median, rangeOf } from '../../src/cli/bench/statistics.js';
import type { Workload } from '../../src/cli/bench/workloads.js';
import { progress, runGroup } from '../group.js';
import type { Cell, GroupOptions, GroupResult, Table } from '../result.js';
import { inPlace, wholeVolume } from './place.js';
import { type Place, startSealbd } from './servers.js';

const MIB = 2 ** 20;
const FILL_TIMEOUT_MS = 240_000;
/** Until the greedy client is in full flow, and for so long after the end of the other one it must go on. */
const HEAD_START_MS = 700;
/** What fio takes to start and to end, at most, beside its time. */
const FIO_ALLOWANCE_MS = 1500;

const POLITE: readonly Workload[] = (['randread', 'randwrite'] as const).map((rw) => ({
  ...{ name: `4 KiB ${rw.slice(4)}s, QD1`, rw, blockBytes: 4096, depth: 1, connections: 1, extra: [] },
}));
const GREEDY: readonly Workload[] = (['read', 'write'] as const).map((rw) => ({
  ...{ name: `4 MiB ${rw}s, QD128`, rw, blockBytes: 4 * MIB, depth: 128, connections: 1, extra: [] },
}));

interface Trial extends Readonly<Record<string, Cell>> {
  readonly row: string;
  readonly round: number;
  readonly aloneIops: number;
  readonly besideIops: number;
  readonly aloneP99us: number;
  readonly besideP99us: number;
  readonly greedyMibPerS: number;
}

async function beside(target: FioOptions, polite: Workload, greedy: Workload, timeMs: number) {
  let ended = false;
  const flood = measureWorkload(target, greedy, HEAD_START_MS + timeMs + FIO_ALLOWANCE_MS).finally(() => {
    ended = true;
  });
  try {
    await new Promise((resolve) => setTimeout(resolve, HEAD_START_MS));
    const figures = await measureWorkload(target, polite, timeMs);
    if (ended) throw new Error(`${polite.name}: ${greedy.name} was over before it`);
    return { figures, greedy: await flood };
  } catch (error) {
    await flood.catch(() => undefined);
    throw error;
  }
}

async function measureTrials(place: Place, rounds: number, timeMs: number): Promise<Trial[]> {
  const server = await startSealbd(place, 'sealbd aes-256-gcm', 'aes-256-gcm', '');
  const trials: Trial[] = [];
  try {
    progress('fairness: filling and verifying');
    const target = wholeVolume(place, server);
    await fill(target, true, FILL_TIMEOUT_MS);
    for (let round = 1; round <= rounds; round++) {
      progress(`fairness: round ${round} of ${rounds}`);
      for (const polite of POLITE) {
        for (const greedy of GREEDY) {
          const alone = await measureWorkload(target, polite, timeMs);
          const { figures, greedy: flood } = await beside(target, polite, greedy, timeMs);
          trials.push({
            ...{ row: `${polite.name}, beside ${greedy.name}`, round, greedyMibPerS: flood.mibPerS },
            ...{ aloneIops: alone.iops, besideIops: figures.iops },
            ...{ aloneP99us: alone.p99us, besideP99us: figures.p99us },
          });
        }
      }
    }
  } finally {
    await server.stop();
  }
  return trials;
}

function table(trials: readonly Trial[]): Table {
  return {
    title: 'A small client beside a greedy one',
    columns: [
      { key: 'row', label: 'workload' },
      { key: 'times', label: 'times slower', digits: 1 },
      { key: 'range', label: 'range' },
      { key: 'aloneIops', label: 'alone requests/s', digits: 0 },
      { key: 'besideIops', label: 'beside requests/s', digits: 0 },
      { key: 'aloneP99us', label: 'alone p99 µs', digits: 0 },
      { key: 'besideP99us', label: 'beside p99 µs', digits: 0 },
      { key: 'greedyMibPerS', label: 'greedy MiB/s', digits: 0 },
    ],
    rows: [...new Set(trials.map(({ row }) => row))].map((row) => {
      const of = trials.filter((trial) => trial.row === row);
      const times = of.map((trial) => trial.aloneIops / trial.besideIops);
      const middle = (key: Exclude<keyof Trial, 'row'>): number =>
        median(of.map((trial) => Number(trial[key])));
      return {
        ...{ row, times: median(times), range: rangeOf(times, 1), greedyMibPerS: middle('greedyMibPerS') },
        ...{ aloneIops: middle('aloneIops'), besideIops: middle('besideIops') },
        ...{ aloneP99us: middle('aloneP99us'), besideP99us: middle('besideP99us') },
      };
    }),
  };
}

async function measure(options: GroupOptions): Promise<GroupResult> {
  const sizeBytes = (options.quick ? 64 : 1024) * MIB;
  const rounds = options.quick ? 1 : options.rounds;
  const timeMs = options.quick ? 100 : 2000;
  return inPlace(options, sizeBytes, async (place) => {
    const trials = await measureTrials(place, rounds, timeMs);
    return {
      notes: [
        `One aes-256-gcm volume of ${sizeBytes / MIB} MiB, full, with the daemon's defaults. Each small workload runs for ${timeMs} ms alone, and then for as long while another client has its 128 requests under way from before it begins until after it ends, or the run fails. Both clients are fio, on the same machine, and share its cores with the daemon.`,
        `${rounds} rounds; ratios are taken within a pair of trials, and the table gives median and range.`,
      ],
      tables: [table(trials), { title: 'Single trials', columns: [], rows: trials, raw: true }],
    };
  });
}

await runGroup(measure);
