/**
 * Random overwrites that go on and on: throughput over time of a volume that is partly full, with compaction at work,
 * against the same workload on a volume that has just been made. Until it is steady, or until its time is up.
 */
import { type FioOptions, fill, measureWorkload } from '../../src/cli/bench/fio.js';
import { median, rangeOf } from '../../src/cli/bench/statistics.js';
import { type Workload, workloadNamed } from '../../src/cli/bench/workloads.js';
import { progress } from '../group.js';
import { type Place, type Sealbd, startSealbd } from '../nbd/servers.js';
import type { Cell, Table } from '../result.js';
import type { Curve } from './curve.js';

const FILL_TIMEOUT_MS = 240_000;
const WORKLOAD: Workload = workloadNamed('4 KiB random write, QD32');
const MIB = 2 ** 20;
/** Windows in a row that must agree. */
const AGREEING = 4;
const AGREEMENT = 0.1;
/** The data must have been overwritten so often: before, much of it still lies where the fill put it. */
const OVERWRITES = 2;
const FRESH_PAIRS = 3;

export interface Steady {
  readonly fullness: number;
  readonly windows: readonly Window[];
  /** False where the time was up first. */
  readonly steady: boolean;
  /** Throughput of a steady window by that of a fresh volume right after it. */
  readonly ratios: readonly number[];
  /** Of the last windows: bytes that went to the log, by bytes that the client wrote. */
  readonly writeAmplification: number;
}

interface Window {
  readonly seconds: number;
  readonly iops: number;
  readonly writtenBytes: number;
  readonly movedBytes: number;
}

export interface SteadyPlan {
  readonly place: Place;
  /** Share of the volume that is filled and overwritten. */
  readonly fullness: number;
  readonly windowMs: number;
  readonly windowsMax: number;
}

const MOVED = 'sealbd_volume_moved_bytes_total';

function isSteady(windows: readonly Window[], dataBytes: number): boolean {
  const last = windows.slice(-AGREEING).map(({ iops }) => iops);
  const written = windows.reduce((sum, { writtenBytes }) => sum + writtenBytes, 0);
  if (last.length < AGREEING || written < OVERWRITES * dataBytes) return false;
  const middle = median(last);
  return last.every((iops) => Math.abs(iops / middle - 1) <= AGREEMENT);
}

async function window(server: Sealbd, options: FioOptions, windowMs: number, start: number): Promise<Window> {
  const before = await server.metric(MOVED);
  const { iops, bytes } = await measureWorkload(options, WORKLOAD, windowMs);
  const movedBytes = (await server.metric(MOVED)) - before;
  return { seconds: (performance.now() - start) / 1000, iops, writtenBytes: bytes, movedBytes };
}

/** The same workload on a volume without content. */
async function freshIops(server: Sealbd, options: FioOptions, windowMs: number): Promise<number> {
  await server.command('volume', 'delete', 'bench', '--yes');
  await server.command('volume', 'create', 'bench', '--size', String(options.sizeBytes));
  return (await measureWorkload(options, WORKLOAD, windowMs)).iops;
}

export async function steadyState({ place, fullness, windowMs, windowsMax }: SteadyPlan): Promise<Steady> {
  const percent = Math.round(fullness * 100);
  progress(`growth: random overwrites of a volume that is ${percent} % full`);
  const { signal } = place.programs;
  const servers: Sealbd[] = [];
  try {
    const server = await startSealbd(place, `full-${percent}`, 'aes-256-gcm', '');
    servers.push(server);
    const fresh = await startSealbd(place, `fresh-${percent}`, 'aes-256-gcm', '');
    servers.push(fresh);
    const dataBytes = Math.floor((place.sizeBytes * fullness) / MIB) * MIB;
    const options = { uri: server.uri, sizeBytes: dataBytes, signal };
    const freshOptions = { uri: fresh.uri, sizeBytes: place.sizeBytes, signal };
    await fill(options, true, FILL_TIMEOUT_MS);
    const windows: Window[] = [];
    const start = performance.now();
    while (windows.length < windowsMax && !isSteady(windows, dataBytes)) {
      windows.push(await window(server, options, windowMs, start));
    }
    const steady = isSteady(windows, dataBytes);
    const ratios: number[] = [];
    const last: Window[] = [];
    for (let pair = 0; pair < FRESH_PAIRS; pair++) {
      last.push(await window(server, options, windowMs, start));
      ratios.push(last[pair].iops / (await freshIops(fresh, freshOptions, windowMs)));
    }
    const all = [...windows, ...last];
    // Compaction works in bursts: a few windows alone would show one, or none.
    const tail = all.slice(-(AGREEING + FRESH_PAIRS));
    const sum = (key: 'writtenBytes' | 'movedBytes'): number =>
      tail.reduce((total, each) => total + each[key], 0);
    const writeAmplification = 1 + sum('movedBytes') / sum('writtenBytes');
    return { fullness, windows: all, steady, ratios, writeAmplification };
  } finally {
    for (const server of servers) await server.stop();
  }
}

export function steadyTable(results: readonly Steady[]): Table {
  return {
    title: 'Random overwrites in steady state',
    columns: [
      { key: 'full', label: 'full, %', digits: 0 },
      { key: 'ratio', label: 'steady / fresh', digits: 2 },
      { key: 'range', label: 'range' },
      { key: 'amplification', label: 'write amplification', digits: 2 },
      { key: 'windows', label: 'windows' },
      { key: 'steady', label: 'steady' },
    ],
    rows: results.map(({ fullness, ratios, writeAmplification, windows, steady }) => ({
      full: fullness * 100,
      ratio: median(ratios),
      range: rangeOf(ratios, 2),
      amplification: writeAmplification,
      windows: windows.length,
      steady: steady ? 'yes' : '**no: its time was up**',
    })),
  };
}

export function fullnessCurve(results: readonly Steady[]): Curve {
  return {
    title: 'Fullness',
    xLabel: 'full, %',
    costLabel: 'write amplification',
    columns: [{ key: 'amplification', label: 'write amplification', digits: 2 }],
    points: results.map(({ fullness, writeAmplification }) => ({
      x: fullness * 100,
      cost: writeAmplification,
      cells: { amplification: writeAmplification },
    })),
  };
}

export function windowTable(results: readonly Steady[]): Table {
  return {
    title: 'Random overwrites over time',
    columns: [
      { key: 'full', label: 'full, %', digits: 0 },
      { key: 'seconds', label: 's since the fill', digits: 1 },
      { key: 'iops', label: 'requests/s', digits: 0 },
      { key: 'written', label: 'written MiB', digits: 0 },
      { key: 'moved', label: 'moved MiB', digits: 0 },
    ],
    rows: results.flatMap(({ fullness, windows }) =>
      windows.map(({ seconds, iops, writtenBytes, movedBytes }): Record<string, Cell> => {
        return {
          ...{ full: fullness * 100, seconds, iops },
          ...{ written: writtenBytes / MIB, moved: movedBytes / MIB },
        };
      }),
    ),
  };
}
