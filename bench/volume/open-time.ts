/**
 * How long a volume takes to open whose map holds 13.1 million single blocks (50 GiB) all over 10 TiB, behind a tail as
 * long as it can get (TAIL_MAX_FACTOR times the slots that start a checkpoint), with cold caches; and what a checkpoint of k
 * changed blocks writes on that map.
 *
 *   npx tsc -p tsconfig.bench.json
 *   SEALBD_TESTING=1 SEALBD_ADDON=$PWD/build/Release/sealbd.node node build/bench/bench/volume/open-time.js [DIR]
 *
 * The segments under the map are sparse files: opening does not read them. Map, root and tail are real. Each step is a
 * process of its own; the one that writes the tail ends by SIGKILL. Root drops the page cache before each opening;
 * without root the figures are those of a warm cache, and say so. DIR (default: a directory in /tmp) needs 5 GiB.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BLOCK_BYTES, SLOT_BYTES } from '../../src/base/limits.js';
import { addon } from '../../src/native/addon.js';
import { defaultTuning, TAIL_MAX_FACTOR, type VolumeTuning } from '../../src/volume/tuning.js';
import { buildSynthetic, openSynthetic, writeRandom } from './synthetic.js';

const BLOCKS = 13_100_000;
const SIZE_BYTES = 10 * 2 ** 40;
const TAIL_SLOTS = TAIL_MAX_FACTOR * defaultTuning(SIZE_BYTES, addon.cpuSelected()).checkpointSlots;
const CHANGED = [1, 100, 10_000, 100_000];
const ROUNDS = 3;
/** Checkpoints come when the benchmark says so. */
const QUIET: Partial<VolumeTuning> = {
  checkpointSlots: TAIL_SLOTS + 1,
  checkpointIntervalMs: 2 ** 30,
  garbageRatio: 1,
};

async function build(path: string): Promise<void> {
  const bytes = await buildSynthetic(path, { sizeBytes: SIZE_BYTES, blocks: BLOCKS });
  console.log(`map: ${BLOCKS} blocks, ${bytes} bytes of map file`);
}

async function changes(path: string): Promise<void> {
  const { volume, close } = await openSynthetic(path, SIZE_BYTES, QUIET);
  for (const k of CHANGED) {
    const before = volume.stats().checkpointBytes;
    await writeRandom(volume, k);
    await volume.checkpoint();
    const bytes = volume.stats().checkpointBytes - before;
    console.log(`checkpoint of ${k} changed blocks: ${bytes} bytes, ${(bytes / k).toFixed(1)} a block`);
  }
  await close();
}

async function tail(path: string): Promise<void> {
  const { volume } = await openSynthetic(path, SIZE_BYTES, QUIET);
  const start = performance.now();
  await writeRandom(volume, TAIL_SLOTS);
  await volume.flush();
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const { tailBytes } = volume.stats();
  console.log(`tail: ${tailBytes / SLOT_BYTES} slots, ${tailBytes} bytes, written in ${seconds} s; killed`);
  process.kill(process.pid, 'SIGKILL');
}

async function measure(path: string, what: string): Promise<void> {
  const { volume, seconds, cpuSeconds, close } = await openSynthetic(path, SIZE_BYTES, {});
  const { mappedBytes, mapMemoryBytes } = volume.stats();
  const memory = `map memory ${(mapMemoryBytes / 2 ** 20).toFixed(0)} MiB`;
  console.log(
    `open, ${what}: ${seconds.toFixed(2)} s, of which CPU ${cpuSeconds.toFixed(2)} s (${mappedBytes / BLOCK_BYTES} blocks, ${memory}, ` +
      `process ${(process.memoryUsage.rss() / 2 ** 20).toFixed(0)} MiB)`,
  );
  await close();
}

/** True where the next process has to read from the disk. */
function dropCaches(): boolean {
  spawnSync('sync');
  if (process.getuid?.() !== 0) return false;
  writeFileSync('/proc/sys/vm/drop_caches', '3');
  return true;
}

function step(path: string, name: string, what = ''): void {
  const program = fileURLToPath(import.meta.url);
  const { status, signal } = spawnSync(process.execPath, [program, path, name, what], { stdio: 'inherit' });
  if (status !== 0 && !(name === 'tail' && signal === 'SIGKILL'))
    throw new Error(`${name} ended with ${status}`);
}

function all(directory: string): void {
  const path = mkdtempSync(join(directory, 'sealbd-open-time-'));
  console.log(`load average before: ${loadavg()[0].toFixed(1)} on ${availableParallelism()} cores`);
  try {
    step(path, 'build');
    step(path, 'changes');
    for (let round = 0; round < ROUNDS; round++) {
      step(path, 'tail');
      const cache = dropCaches() ? 'cold cache' : 'warm cache';
      step(path, 'open', `with the longest tail, ${cache}`);
      dropCaches();
      step(path, 'open', `after a clean stop, ${cache}`);
    }
  } finally {
    rmSync(path, { recursive: true, force: true });
  }
}

const [path = tmpdir(), role, what = ''] = process.argv.slice(2);
if (role === 'build') await build(path);
else if (role === 'changes') await changes(path);
else if (role === 'tail') await tail(path);
else if (role === 'open') await measure(path, what);
else all(path);
