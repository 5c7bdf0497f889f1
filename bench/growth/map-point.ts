/**
 * One point of the curves over maps: a volume with a synthetic map. `build` makes it, `measure` opens it and prints JSON;
 * each is a process of its own, since what building leaves in memory is no part of what a daemon needs.
 */
import { BLOCK_BYTES } from '../../src/base/limits.js';
import { buildSynthetic, openSynthetic, type Shape, writeRandom } from '../volume/synthetic.js';
import { CHANGED_BLOCKS, type MapPoint } from './map-point-shape.js';

const LOOKUPS = 200_000;
/** Checkpoints come when they are asked for, and nothing is moved. */
const QUIET = { checkpointIntervalMs: 2 ** 30, checkpointSlots: 2 ** 20, garbageRatio: 1 };

async function measure(path: string, shape: Shape): Promise<MapPoint> {
  const { volume, seconds, close } = await openSynthetic(path, shape.sizeBytes, QUIET);
  globalThis.gc?.();
  const residentBytes = process.memoryUsage.rss();
  const mapBytes = volume.stats().mapMemoryBytes;
  const lookupNs = timeLookups(volume, shape);
  const before = volume.stats().checkpointBytes;
  await writeRandom(volume, CHANGED_BLOCKS);
  await volume.flush();
  const start = performance.now();
  await volume.checkpoint();
  const checkpointMs = performance.now() - start;
  const checkpointBytes = volume.stats().checkpointBytes - before;
  await close();
  return { openSeconds: seconds, lookupNs, mapBytes, residentBytes, checkpointBytes, checkpointMs };
}

/** A question for one block, as BLOCK_STATUS asks it; the same places at every run. */
function timeLookups(
  volume: { extents(offset: number, length: number, extentsMax: number): unknown[] },
  { sizeBytes }: Shape,
): number {
  const spanBlocks = sizeBytes / BLOCK_BYTES;
  const offsets = Float64Array.from({ length: LOOKUPS }, (_, i) => {
    return Math.floor(((i * 0.618_033_988_75) % 1) * spanBlocks) * BLOCK_BYTES;
  });
  let found = 0;
  const pass = (): void => {
    for (const offset of offsets) found += volume.extents(offset, BLOCK_BYTES, 1).length;
  };
  pass();
  const start = performance.now();
  pass();
  const ns = ((performance.now() - start) * 1e6) / LOOKUPS;
  if (found !== 2 * LOOKUPS) throw new Error(`${found} extents for ${2 * LOOKUPS} questions`);
  return ns;
}

const [role, path, text] = process.argv.slice(2);
const shape = JSON.parse(text) as Shape;
if (role === 'build') await buildSynthetic(path, shape);
else console.log(JSON.stringify(await measure(path, shape)));
