/**
 * Memory and time of the block map. Each case runs in a process of its own; `npm run bench -- --group map` runs all,
 * and with the name of a case this program runs that one.
 * Cases that touch blocks at random mostly wait for the machine's memory: compare ratios.
 */
import { BlockMap } from '../../src/volume/block-map.js';

const BLOCKS = 13_100_000;
const GIB = 2 ** 18; // in blocks

interface Result {
  readonly [figure: string]: number | string;
}

/** A small generator with a fixed seed, so that every run maps the same blocks. */
function generator(seed: number): (below: number) => number {
  let a = seed;
  return (below) => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    const high = (t ^ (t >>> 14)) >>> 0;
    return Math.floor((high / 2 ** 32) * below);
  };
}

function ignore(): void {}

function elapsedNs(start: bigint, count: number): number {
  return Math.round(Number(process.hrtime.bigint() - start) / count);
}

function random(spanBlocks: number): Result {
  const map = new BlockMap(2 ** 40);
  const next = generator(1);
  const draw = elapsed(() => {
    for (let i = 0; i < BLOCKS; i++) next(spanBlocks);
  });
  const step = 100_000;
  let stallMs = 0;
  let slot = 0;
  const start = process.hrtime.bigint();
  while (map.mappedBlocks < BLOCKS) {
    for (let i = 0; i < step; i++) {
      const before = i % 64 === 0 ? process.hrtime.bigint() : 0n;
      map.setRun(next(spanBlocks), 1, slot, ignore);
      slot += 2;
      if (before !== 0n) stallMs = Math.max(stallMs, Number(process.hrtime.bigint() - before) / 1e6);
    }
  }
  const setNs = elapsedNs(start, slot / 2) - draw;
  const blocks = map.mappedBlocks;
  const bytesPerBlock = (map.memoryBytes / blocks).toFixed(2);
  const getNs = timeGets(map, spanBlocks, draw);
  const overwriteStart = process.hrtime.bigint();
  for (let i = 0; i < 2_000_000; i++) map.setRun(next(spanBlocks), 1, slot + i * 2, ignore);
  const overwriteNs = elapsedNs(overwriteStart, 2_000_000) - draw;
  return {
    blocks,
    bytesPerBlock,
    setNs,
    overwriteNs,
    getNs,
    worstSampleMs: stallMs.toFixed(2),
  };
}

function elapsed(work: () => void): number {
  const start = process.hrtime.bigint();
  work();
  return elapsedNs(start, BLOCKS);
}

function timeGets(map: BlockMap, spanBlocks: number, drawNs: number): number {
  const next = generator(2);
  let sum = 0;
  const start = process.hrtime.bigint();
  for (let i = 0; i < 5_000_000; i++) sum += map.get(next(spanBlocks));
  const ns = elapsedNs(start, 5_000_000) - drawNs;
  if (sum === 0) throw new Error('nothing was found');
  return ns;
}

function sequential(requestBlocks: number): Result {
  const map = new BlockMap(2 ** 40);
  const start = process.hrtime.bigint();
  for (let lba = 0; lba < BLOCKS; lba += requestBlocks) map.setRun(lba, requestBlocks, lba + 77, ignore);
  const setNs = elapsedNs(start, BLOCKS / requestBlocks);
  const bytesPerBlock = (map.memoryBytes / map.mappedBlocks).toFixed(4);
  return { blocks: map.mappedBlocks, bytesPerBlock, setNs, getNs: timeGets(map, BLOCKS, 8) };
}

/** Single blocks in order whose slots never follow each other: the worst map of a full volume. */
function load(strideBlocks: number): Result {
  const map = new BlockMap(2 ** 40);
  const start = process.hrtime.bigint();
  const loader = map.loader();
  for (let i = 0; i < BLOCKS; i++) loader.add(i * strideBlocks, 1, (i * 7919) % 2 ** 38);
  loader.finish();
  const seconds = (Number(process.hrtime.bigint() - start) / 1e9).toFixed(2);
  return {
    blocks: map.mappedBlocks,
    bytesPerBlock: (map.memoryBytes / map.mappedBlocks).toFixed(2),
    seconds,
  };
}

function unmap(): Result {
  const map = new BlockMap(2 ** 40);
  const loader = map.loader();
  for (let lba = 0; lba < 4 * GIB; lba++) loader.add(lba, 1, lba * 3);
  loader.add(2 ** 33, 1, 1);
  loader.finish();
  const t0 = process.hrtime.bigint();
  map.unmapRun(4 * GIB, 2048 * GIB, ignore);
  const t1 = process.hrtime.bigint();
  map.unmapRun(0, 4 * GIB, ignore);
  const t2 = process.hrtime.bigint();
  return { empty2TiBMs: (Number(t1 - t0) / 1e6).toFixed(3), full4GiBMs: (Number(t2 - t1) / 1e6).toFixed(2) };
}

/** What the machine takes for a read that depends on the one before, in as much memory as the map has. */
function memoryLatency(): Result {
  const count = 2 ** 25;
  const next = generator(3);
  const cycle = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const other = next(i);
    const value = cycle[i] as number;
    cycle[i] = cycle[other] as number;
    cycle[other] = value;
  }
  let at = 0;
  const start = process.hrtime.bigint();
  for (let i = 0; i < 5_000_000; i++) at = cycle[at] as number;
  return { bytes: cycle.byteLength, readNs: elapsedNs(start, 5_000_000), end: at };
}

const CASES: Record<string, () => Result> = {
  'one random read of memory': memoryLatency,
  'random blocks in 10 TiB': () => random(10 * 1024 * GIB),
  'random blocks in 64 TiB': () => random(64 * 1024 * GIB),
  'random blocks in 1 TiB': () => random(1024 * GIB),
  'random blocks in 64 GiB': () => random(64 * GIB),
  'in order, 1 block a request': () => sequential(1),
  'in order, 256 blocks a request': () => sequential(256),
  'load, all blocks of 50 GiB': () => load(1),
  'load, every 205th block of 10 TiB': () => load(205),
  'unmap 2 TiB of nothing, 4 GiB of single blocks': unmap,
};

const name = process.argv[2];
if (name === undefined) console.log(JSON.stringify(Object.keys(CASES)));
else {
  const run = CASES[name];
  if (!run) throw new Error(`no case '${name}'; there are: ${Object.keys(CASES).join(', ')}`);
  console.log(JSON.stringify(run()));
}
