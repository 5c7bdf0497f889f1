/** Queue depth, connections and request size against one daemon with its defaults. */
import { fill, measureWorkload } from '../../src/cli/bench/fio.js';
import { median } from '../../src/cli/bench/statistics.js';
import { orderOf } from '../../src/cli/bench/trials.js';
import type { Workload } from '../../src/cli/bench/workloads.js';
import { progress } from '../group.js';
import { wholeVolume } from '../nbd/place.js';
import { type Place, startSealbd } from '../nbd/servers.js';
import type { Curve, Point } from './curve.js';

const FILL_TIMEOUT_MS = 240_000;
/** What only requests under way need is given back within a few seconds. */
export const REST_MS = 10_000;
const KIB = 1024;
const MIB = KIB * KIB;

interface Axis {
  readonly title: string;
  readonly xLabel: string;
  readonly costLabel: string;
  readonly xs: readonly number[];
  /** What one request costs when x of them share the work (or it has x bytes). */
  cost(x: number, iops: number): number;
  workload(x: number): Pick<Workload, 'depth' | 'connections' | 'blockBytes'>;
}

const powers = (from: number, to: number): number[] => {
  const result: number[] = [];
  for (let value = from; value <= to; value *= 2) result.push(value);
  return result;
};

const AXES: readonly Axis[] = [
  {
    title: 'Queue depth',
    xLabel: 'requests under way',
    costLabel: 'time of a request, µs',
    xs: powers(1, 128),
    cost: (x, iops) => (x / iops) * 1e6,
    workload: (depth) => ({ depth, connections: 1, blockBytes: 4 * KIB }),
  },
  {
    title: 'Connections',
    xLabel: 'connections, QD4 each',
    costLabel: 'time of a request, µs',
    xs: powers(1, 64),
    cost: (x, iops) => ((4 * x) / iops) * 1e6,
    workload: (connections) => ({ depth: 4, connections, blockBytes: 4 * KIB }),
  },
  {
    title: 'Request size',
    xLabel: 'bytes a request, QD8',
    costLabel: 'time between two requests, µs',
    xs: powers(512, 4 * MIB),
    cost: (_, iops) => 1e6 / iops,
    workload: (blockBytes) => ({ depth: 8, connections: 1, blockBytes }),
  },
];

interface LoadPoint {
  readonly axis: Axis;
  readonly x: number;
  readonly workload: Workload;
}

export interface LoadCurves {
  readonly curves: readonly Curve[];
  /** The daemon's resident memory with one empty volume. */
  readonly startedBytes: number;
  /** The same in the instant when the last of that load ended. */
  readonly loadedBytes: number;
  /** The same at rest, REST_MS later. */
  readonly residentBytes: number;
  /** What its map holds of that. */
  readonly mapBytes: number;
}

function pointsOf(quick: boolean): LoadPoint[] {
  return AXES.flatMap((axis) =>
    (['randread', 'randwrite'] as const).flatMap((rw) => {
      const xs = quick ? axis.xs.filter((_, i) => i % 4 === 0) : axis.xs;
      return xs.map((x): LoadPoint => {
        const name = `${axis.title}, ${rw === 'randread' ? 'random read' : 'random write'}`;
        return { axis, x, workload: { name, rw, extra: [], ...axis.workload(x) } };
      });
    }),
  );
}

export async function loadCurves(
  place: Place,
  rounds: number,
  timeMs: number,
  quick: boolean,
): Promise<LoadCurves> {
  const server = await startSealbd(place, 'load', 'aes-256-gcm', '');
  const points = pointsOf(quick);
  const startedBytes = server.usage().residentBytes;
  const rates = new Map<LoadPoint, { iops: number; mibPerS: number; p99us: number }[]>();
  try {
    const options = wholeVolume(place, server);
    await fill(options, true, FILL_TIMEOUT_MS);
    for (let round = 0; round < rounds; round++) {
      progress(`growth: queue depth, connections and request size, round ${round + 1} of ${rounds}`);
      for (const point of orderOf(points, round)) {
        const figures = await measureWorkload(options, point.workload, timeMs);
        rates.set(point, [...(rates.get(point) ?? []), figures]);
      }
    }
    const loadedBytes = server.usage().residentBytes;
    await new Promise((resolve) => setTimeout(resolve, REST_MS));
    const { residentBytes } = server.usage();
    const mapBytes = await server.metric('sealbd_volume_map_memory_bytes');
    return { curves: curvesOf(points, rates), startedBytes, loadedBytes, residentBytes, mapBytes };
  } finally {
    await server.stop();
  }
}

function curvesOf(
  points: readonly LoadPoint[],
  rates: ReadonlyMap<LoadPoint, readonly { iops: number; mibPerS: number; p99us: number }[]>,
): Curve[] {
  return [...new Set(points.map(({ workload }) => workload.name))].map((title) => {
    const own = points.filter(({ workload }) => workload.name === title);
    const { xLabel, costLabel } = own[0].axis;
    return {
      title,
      xLabel,
      costLabel,
      columns: [
        { key: 'iops', label: 'requests/s', digits: 0 },
        { key: 'mibPerS', label: 'MiB/s', digits: 0 },
        { key: 'p99us', label: 'p99 µs', digits: 0 },
      ],
      points: own.map((point): Point => {
        const figures = rates.get(point)!;
        const middle = (key: 'iops' | 'mibPerS' | 'p99us'): number =>
          median(figures.map((each) => each[key]));
        const iops = middle('iops');
        const cells = { iops, mibPerS: middle('mibPerS'), p99us: middle('p99us') };
        return { x: point.x, cost: point.axis.cost(point.x, iops), cells };
      }),
    };
  });
}
