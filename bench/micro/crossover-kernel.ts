/** Inline against pool for the kernel that SEALBD_CPU names: sealRun and readRun through CipherPool. */
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import type { CipherJob } from '../../src/cipher/jobs.js';
import { addon, RUN_OK, SUITE_GCM } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import { runGroup } from '../group.js';
import type { Cell, GroupOptions, GroupResult } from '../result.js';
import { quantile } from '../statistics.js';

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

async function measure({ quick, directory }: GroupOptions): Promise<GroupResult> {
  const timeMs = quick ? 20 : 150;
  const fixture = new Fixture(directory);
  const rows: Record<string, Cell>[] = [];
  try {
    for (let threads = 0; threads <= Math.min(availableParallelism(), THREADS_MAX); threads++) {
      const pool = new CipherPool({ threads: Math.max(1, threads) });
      for (const op of ['seal', 'read'] as const) {
        for (const size of quick ? SIZES_QUICK : SIZES) {
          const jobs = Array.from({ length: DEPTH }, (_, lane) => fixture.job(op, size, lane));
          const run: Run =
            threads === 0 ? (lane) => pool.runInline(jobs[lane], true) : (lane) => pool.run(jobs[lane]);
          await drive(run, DEPTH, size, timeMs / 3, () => undefined);
          const alone = await drive(run, 1, size, timeMs, () => undefined);
          const busy = await drive(run, DEPTH, size, timeMs, () => fixture.otherWork(size));
          rows.push({
            kernel: addon.cpuSelected(),
            op,
            kib: size / KIB,
            where: threads === 0 ? 'inline' : `pool ${threads}`,
            aloneP50us: alone.p50us,
            aloneP99us: alone.p99us,
            busyP50us: busy.p50us,
            busyP99us: busy.p99us,
            busyGbPerS: busy.bytesPerS / 1e9,
          });
        }
      }
      await pool.destroy();
    }
  } finally {
    fixture.remove();
  }
  return { notes: [], tables: [{ title: 'runs', columns: [], rows, raw: true }] };
}

await runGroup(measure);
