/** Volume size and mapped data, with synthetic maps: look-up, memory, opening, checkpoint. */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { progress } from '../group.js';
import { type Programs, run } from '../nbd/processes.js';
import type { Shape } from '../volume/synthetic.js';
import { type Curve, lineOf, type Point } from './curve.js';
import { CHANGED_BLOCKS, type MapPoint } from './map-point-shape.js';

const POINT_FILE = fileURLToPath(new URL('./map-point.js', import.meta.url));
const POINT_TIMEOUT_MS = 300_000;
const GIB = 2 ** 30;
const SIZES_GIB = [1, 10, 100, 1024, 10_240];
const SIZES_QUICK_GIB = [1, 1024];
const BLOCKS_OF_SIZES = 100_000;
const BLOCKS_OF_SIZES_QUICK = 10_000;
const LARGE_GIB = 10_240;
const BLOCKS = [820_000, 1_640_000, 3_275_000, 6_550_000, 13_100_000];
const BLOCKS_QUICK = [20_000, 40_000];

export interface MapCurves {
  readonly curves: readonly Curve[];
  /** What each mapped block adds to resident memory, bytes. */
  readonly bytesPerBlock: number;
}

async function point(programs: Programs, directory: string, shape: Shape): Promise<MapPoint> {
  const path = mkdtempSync(join(directory, 'map-'));
  try {
    const { SEALBD_TESTING, SEALBD_ADDON } = process.env;
    const env = { SEALBD_TESTING, SEALBD_ADDON };
    const role = async (name: string): Promise<string> => {
      const args = ['--expose-gc', POINT_FILE, name, path, JSON.stringify(shape)];
      return (await run(programs, process.execPath, args, POINT_TIMEOUT_MS, env)).stdout;
    };
    await role('build');
    return JSON.parse(await role('measure')) as MapPoint;
  } finally {
    rmSync(path, { recursive: true, force: true });
  }
}

interface Measured {
  readonly x: number;
  readonly blocks: number;
  readonly point: MapPoint;
}

const COSTS = [
  { key: 'lookupNs', label: 'look-up, ns', digits: 0, of: ({ point }: Measured) => point.lookupNs },
  {
    key: 'bytesPerBlock',
    label: 'map memory, bytes a mapped block',
    digits: 2,
    of: ({ point, blocks }: Measured) => point.mapBytes / blocks,
  },
  {
    key: 'checkpointBytes',
    label: 'checkpoint, bytes a changed block',
    digits: 1,
    of: ({ point }: Measured) => point.checkpointBytes / CHANGED_BLOCKS,
  },
  {
    key: 'checkpointMs',
    label: 'checkpoint, ms',
    digits: 1,
    of: ({ point }: Measured) => point.checkpointMs,
  },
  { key: 'openSeconds', label: 'open, s', digits: 3, of: ({ point }: Measured) => point.openSeconds },
  {
    key: 'residentMib',
    label: 'process, MiB',
    digits: 0,
    of: ({ point }: Measured) => point.residentBytes / 2 ** 20,
  },
] as const;

/** A curve for each cost that is expected to matter; each table shows all of them. */
function curvesOf(
  title: string,
  xLabel: string,
  measured: readonly Measured[],
  keys: readonly (typeof COSTS)[number]['key'][],
): Curve[] {
  return COSTS.filter(({ key }) => keys.includes(key)).map(({ key, label, digits, of }) => ({
    title: `${title}: ${label}`,
    xLabel,
    costLabel: label,
    columns: [{ key, label, digits }],
    points: measured.map((each): Point => ({ x: each.x, cost: of(each), cells: { [key]: of(each) } })),
  }));
}

export async function mapCurves(programs: Programs, directory: string, quick: boolean): Promise<MapCurves> {
  const bySize: Measured[] = [];
  const blocks = quick ? BLOCKS_OF_SIZES_QUICK : BLOCKS_OF_SIZES;
  for (const gib of quick ? SIZES_QUICK_GIB : SIZES_GIB) {
    progress(`growth: a map of ${blocks} blocks in ${gib} GiB`);
    const shape = { sizeBytes: gib * GIB, blocks };
    bySize.push({ x: gib, blocks, point: await point(programs, directory, shape) });
  }
  const byBlocks: Measured[] = [];
  for (const count of quick ? BLOCKS_QUICK : BLOCKS) {
    progress(`growth: a map of ${count} blocks in ${LARGE_GIB} GiB`);
    const shape = { sizeBytes: LARGE_GIB * GIB, blocks: count };
    byBlocks.push({ x: count, blocks: count, point: await point(programs, directory, shape) });
  }
  const line = lineOf(byBlocks.map(({ x, point: { residentBytes } }) => ({ x, y: residentBytes })));
  return {
    curves: [
      ...curvesOf('Volume size', 'GiB', bySize, [
        'lookupNs',
        'bytesPerBlock',
        'checkpointBytes',
        'checkpointMs',
      ]),
      ...curvesOf('Mapped data', 'mapped blocks', byBlocks, [
        'lookupNs',
        'checkpointBytes',
        'checkpointMs',
        'openSeconds',
        'residentMib',
      ]),
    ],
    bytesPerBlock: line.slope,
  };
}
