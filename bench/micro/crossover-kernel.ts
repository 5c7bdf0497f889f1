/** Inline against pool for the kernel that SEALBD_CPU names: sealRun and readRun through CipherPool. */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import type { CipherJob } from '../../src/cipher/jobs.js';
import { median, quantile } from '../../src/cli/bench/statistics.js';
import { addon, RUN_OK, SUITE_GCM } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import { runGroup } from '../group.js';
import type { Cell, GroupOptions, GroupResult } from '../result.js';

const KIB = 1024;
const SIZES = [4, 16, 64, 256, 512, 1024, 2048, 4096].map((kib) => kib * KIB);
const SIZES_QUICK = [4, 256].map((kib) => kib * KIB);
const DEPTH = 8;
const THREADS_MAX = 4;
const BLOCK = 4096;
const SLOT = 4128;
const CONTEXT_BYTES = 57;
const LARGEST = 4096 * KIB;
/** What one receive takes from a socket at most: other work comes in pieces of this size. */
const PIECE_BYTES = 1024 * KIB;

type Run = (lane: number) => number | Promise<number>;

interface Spread {
  readonly p50us: number;
  readonly p99us: number;
  readonly bytesPerS: number;
}

/** Slots of every lane in memory and in one file, sealed under one key, so that reads authenticate. */
class Fixture {
  readonly fd: number;
  readonly #directory: string;
  readonly #plain: Arena[] = [];
  readonly #slots: Arena[] = [];
  readonly #received = Buffer.alloc(PIECE_BYTES);
  readonly #key = addon.segmentKeyDerive(
    addon.keyGenerate(),
    SUITE_GCM,
    Buffer.alloc(CONTEXT_BYTES, SUITE_GCM),
  );

  constructor(directory: string) {
    this.#directory = mkdtempSync(join(directory, 'sealbd-crossover-'));
    for (let lane = 0; lane < DEPTH; lane++) {
      this.#plain.push(new Arena(LARGEST));
      this.#slots.push(new Arena((LARGEST / BLOCK) * SLOT));
      addon.randomFill(this.#plain[lane].bytes);
    }
    this.fd = openSync(join(this.#directory, 'slots'), 'w+');
    checked(
      addon.sealRun(this.#key, this.#slots[0].ref(0), this.#plain[0].ref(0), LARGEST / BLOCK, 0, 0, 1, -1, 1),
    );
    writeSync(this.fd, this.#slots[0].bytes);
  }

  job(op: 'seal' | 'read', size: number, lane: number): CipherJob {
    const common = { key: this.#key, blocks: size / BLOCK, position: 0, lba: 0 };
    const plain = this.#plain[lane].ref(0);
    if (op === 'read') return { op, ...common, fd: this.fd, fileOffset: 0, dst: plain };
    return { op, ...common, dst: this.#slots[lane].ref(0), src: plain, sequence: 1, durable: -1, kind: 1 };
  }

  /** What a server does for a run of this size beside the cipher: as many bytes through the kernel. */
  otherWork(size: number): void {
    for (let done = 0; done < size; done += PIECE_BYTES) {
      const length = Math.min(PIECE_BYTES, size - done);
      if (readSync(this.fd, this.#received, 0, length, done) !== length) throw new Error('the file is short');
    }
  }

  remove(): void {
    closeSync(this.fd);
    rmSync(this.#directory, { recursive: true });
  }
}

function checked(status: number): number {
  if (status !== RUN_OK) throw new Error(`a run gave ${status}`);
  return status;
}

/** `depth` lanes, each with one run under way; `before` is the main thread's other work for each run. */
async function drive(
  run: Run,
  depth: number,
  size: number,
  timeMs: number,
  before: () => void,
): Promise<Spread> {
  const latencies: number[] = [];
  const start = performance.now();
  const end = start + timeMs;
  async function lane(index: number): Promise<void> {
    while (performance.now() < end) {
      before();
      const submitted = performance.now();
      const result = run(index);
      checked(typeof result === 'number' ? result : await result);
      latencies.push((performance.now() - submitted) * 1000);
      // As in a server, everybody else gets a turn of the event loop between two requests.
      if (typeof result === 'number') await new Promise(setImmediate);
    }
  }
  await Promise.all(Array.from({ length: depth }, (_, index) => lane(index)));
  const seconds = (performance.now() - start) / 1000;
  return {
    p50us: quantile(latencies, 0.5),
    p99us: quantile(latencies, 0.99),
    bytesPerS: (latencies.length * size) / seconds,
  };
}

/** A place where runs can go: the calling thread, or a pool. */
interface Place {
  readonly where: string;
  readonly run: (job: CipherJob) => number | Promise<number>;
}

function places(pools: readonly CipherPool[]): Place[] {
  const inline: Place = { where: 'inline', run: (job) => pools[0].runInline(job, true) };
  return [
    inline,
    ...pools.map((pool) => ({
      where: `pool ${pool.stats().threads}`,
      run: (job: CipherJob) => pool.run(job),
    })),
  ];
}

/** The median of each figure: a machine that is busy for a moment spoils one round, not the result. */
function medians(spreads: readonly Spread[]): Spread {
  const of = (key: keyof Spread): number => median(spreads.map((spread) => spread[key]));
  return { p50us: of('p50us'), p99us: of('p99us'), bytesPerS: of('bytesPerS') };
}

/** Measures one run length at every place in turn, round by round. */
async function compare(
  fixture: Fixture,
  at: readonly Place[],
  op: 'seal' | 'read',
  size: number,
  rounds: number,
  timeMs: number,
): Promise<Record<string, Cell>[]> {
  const jobs = Array.from({ length: DEPTH }, (_, lane) => fixture.job(op, size, lane));
  const alone = at.map((): Spread[] => []);
  const busy = at.map((): Spread[] => []);
  for (const { run } of at)
    await drive(
      (lane) => run(jobs[lane]),
      DEPTH,
      size,
      timeMs,
      () => undefined,
    );
  for (let round = 0; round < rounds; round++) {
    for (const [i, place] of at.entries()) {
      const run: Run = (lane) => place.run(jobs[lane]);
      alone[i].push(await drive(run, 1, size, timeMs, () => undefined));
      busy[i].push(await drive(run, DEPTH, size, timeMs, () => fixture.otherWork(size)));
    }
  }
  return at.map(({ where }, i) => {
    const [single, loaded] = [medians(alone[i]), medians(busy[i])];
    return {
      kernel: addon.cpuSelected(),
      op,
      kib: size / KIB,
      where,
      aloneP50us: single.p50us,
      aloneP99us: single.p99us,
      busyP50us: loaded.p50us,
      busyP99us: loaded.p99us,
      busyGbPerS: loaded.bytesPerS / 1e9,
    };
  });
}

async function measure({ quick, rounds, directory }: GroupOptions): Promise<GroupResult> {
  const fixture = new Fixture(directory);
  const threadsMax = Math.min(availableParallelism(), THREADS_MAX);
  const pools = Array.from({ length: threadsMax }, (_, i) => new CipherPool({ threads: i + 1 }));
  const rows: Record<string, Cell>[] = [];
  try {
    for (const op of ['seal', 'read'] as const) {
      for (const size of quick ? SIZES_QUICK : SIZES) {
        const repeat = quick ? 1 : rounds;
        rows.push(...(await compare(fixture, places(pools), op, size, repeat, quick ? 20 : 60)));
      }
    }
  } finally {
    for (const pool of pools) await pool.destroy();
    fixture.remove();
  }
  return { notes: [], tables: [{ title: 'runs', columns: [], rows, raw: true }] };
}

await runGroup(measure);
