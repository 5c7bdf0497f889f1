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
import { systemClock } from '../../src/base/clock.js';
import { BLOCK_BYTES, SEGMENT_SLOTS, SLOT_BYTES } from '../../src/base/limits.js';
import { nullLogger } from '../../src/base/log.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { addon, type KeyHandle } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import {
  SALT_BYTES,
  SEGMENT_KIND_HEAD,
  segmentFileBytes,
  segmentFileName,
} from '../../src/segment/format.js';
import { Segment } from '../../src/segment/segment.js';
import { FsStore } from '../../src/store/fs-store.js';
import { ChangeLog } from '../../src/volume/change-log.js';
import { type CheckpointRoot, encodeRoot, writeRoot } from '../../src/volume/checkpoint-root.js';
import { MapRuns, type SegmentChange } from '../../src/volume/map-runs.js';
import { SparePool } from '../../src/volume/spare-pool.js';
import { defaultTuning, TAIL_MAX_FACTOR, type VolumeTuning } from '../../src/volume/tuning.js';
import { Volume } from '../../src/volume/volume.js';
import { VolumeKeys } from '../../src/volume/volume-keys.js';

const BLOCKS = 13_100_000;
const SIZE_BYTES = 10 * 2 ** 40;
const SPAN_BLOCKS = SIZE_BYTES / BLOCK_BYTES;
const TAIL_SLOTS = TAIL_MAX_FACTOR * defaultTuning(SIZE_BYTES, addon.cpuSelected()).checkpointSlots;
const CHANGED = [1, 100, 10_000, 100_000];
const ROUNDS = 3;
const DEK_ID = 1;
const SUITE = 2;
const UUID = new Uint8Array(16).fill(0x5a);
/** Nobody's data is under it. */
const KEY_BYTE = 7;
const WRITES_AT_ONCE = 256;
/** Checkpoints come when the benchmark says so. */
const QUIET: Partial<VolumeTuning> = {
  checkpointSlots: TAIL_SLOTS + 1,
  checkpointIntervalMs: 2 ** 30,
  garbageRatio: 1,
};

const key = (): KeyHandle => addon.keyImport(new Uint8Array(32).fill(KEY_BYTE));

/** The whole map in one sorted run, and a sparse file for each segment that it names. */
async function build(path: string): Promise<void> {
  const store = await FsStore.open(path, { create: true });
  const segments: SegmentChange[] = [];
  for (let index = 0; index * SEGMENT_SLOTS < BLOCKS; index++) {
    const salt = new Uint8Array(SALT_BYTES);
    addon.randomFill(salt);
    const identity = {
      index,
      id: index + 1,
      kind: SEGMENT_KIND_HEAD,
      suite: SUITE,
      dekId: DEK_ID,
      originUuid: UUID,
      salt,
    } as const;
    segments.push({ index, segment: new Segment(identity, SEGMENT_SLOTS, true), slots: SEGMENT_SLOTS });
    const file = await store.create(segmentFileName(index + 1), 0);
    await file.truncate(segmentFileBytes(SEGMENT_SLOTS));
    await file.close();
  }
  const root: CheckpointRoot = {
    dekId: DEK_ID,
    generation: 1,
    lastSequence: BLOCKS,
    nextSegmentId: segments.length + 1,
    nextMapFileId: 1,
    headId: 0,
    headSlots: 0,
    preparedId: 0,
    sizeBytes: SIZE_BYTES,
    mappedBlocks: BLOCKS,
    runs: [],
  };
  const dek = key();
  const segmentBytes = segmentFileBytes(SEGMENT_SLOTS);
  const spares = new SparePool({
    store,
    segmentBytes,
    mapBytes: segmentBytes,
    sparesMax: 0,
    reserveMax: 0,
    sealing: () => DEK_ID,
  });
  const deks = new Map([[DEK_ID, dek]]);
  const keys = new VolumeKeys({ suite: 2, deks, activeDek: DEK_ID });
  const options = { store, uuid: UUID, deks, keys, spares, root, mapFiles: new Set<number>() };
  const files = new MapRuns(options);
  const runs = await files.extend([], [randomMap()], segments);
  await writeRoot(store, encodeRoot(UUID, { ...root, nextMapFileId: files.nextFileId, runs }, dek));
  addon.keyRelease(dek);
  const bytes = runs.reduce((sum, run) => sum + run.bytes, 0);
  console.log(`map: ${BLOCKS} blocks in ${segments.length} segments, ${bytes} bytes of map file`);
}

/** Single blocks at random distances, each in a slot of its own at random. */
function randomMap(): ChangeLog {
  const slots = Uint32Array.from({ length: BLOCKS }, (_, i) => i);
  for (let i = BLOCKS - 1; i > 0; i--) {
    const other = Math.floor(Math.random() * (i + 1));
    const slot = slots[i];
    slots[i] = slots[other];
    slots[other] = slot;
  }
  const log = new ChangeLog();
  const gapMax = Math.floor((2 * SPAN_BLOCKS) / BLOCKS) - 2;
  let lba = 0;
  for (const slot of slots) {
    log.append(lba, 1, slot);
    lba += 1 + Math.floor(Math.random() * gapMax);
  }
  return log;
}

interface Opened {
  readonly volume: Volume;
  readonly seconds: number;
  /** Of all threads: what a machine that does nothing else would need at most, reading aside. */
  readonly cpuSeconds: number;
  close(): Promise<void>;
}

async function open(path: string, tuning: Partial<VolumeTuning>): Promise<Opened> {
  const cipher = new CipherPool({ threads: 2 });
  const dek = key();
  const start = performance.now();
  const cpu = process.cpuUsage();
  const volume = await Volume.open({
    name: 'bench',
    uuid: UUID,
    sizeBytes: SIZE_BYTES,
    suite: SUITE,
    deks: new Map([[DEK_ID, dek]]),
    activeDek: DEK_ID,
    store: await FsStore.open(path),
    cipher,
    clock: systemClock,
    log: nullLogger,
    fresh: false,
    tuning,
  });
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const cpuSeconds = (user + system) / 1e6;
  const close = async (): Promise<void> => {
    await volume.stop(60_000);
    await cipher.destroy();
    addon.keyRelease(dek);
  };
  return { volume, seconds, cpuSeconds, close };
}

async function writeRandom(volume: Volume, blocks: number): Promise<void> {
  const source = new Arena(BLOCK_BYTES);
  addon.randomFill(source.bytes);
  for (let done = 0; done < blocks; ) {
    const some = Math.min(WRITES_AT_ONCE, blocks - done);
    const writes: (void | Promise<void>)[] = [];
    for (let i = 0; i < some; i++) {
      const lba = Math.floor(Math.random() * SPAN_BLOCKS);
      writes.push(volume.write(source, 0, lba * BLOCK_BYTES, BLOCK_BYTES));
    }
    await Promise.all(writes);
    done += some;
  }
  source.free();
}

async function changes(path: string): Promise<void> {
  const { volume, close } = await open(path, QUIET);
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
  const { volume } = await open(path, QUIET);
  const start = performance.now();
  await writeRandom(volume, TAIL_SLOTS);
  await volume.flush();
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const { tailBytes } = volume.stats();
  console.log(`tail: ${tailBytes / SLOT_BYTES} slots, ${tailBytes} bytes, written in ${seconds} s; killed`);
  process.kill(process.pid, 'SIGKILL');
}

async function measure(path: string, what: string): Promise<void> {
  const { volume, seconds, cpuSeconds, close } = await open(path, {});
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
