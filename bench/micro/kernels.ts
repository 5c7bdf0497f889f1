/**
 * Throughput of the AES-256 kernels against OpenSSL's EVP and memcpy, in one process.
 *
 * - `ctr`, `seal`, `open` of a kernel: addon.primitives. Each call includes crossing into C++ and the key expansion
 *   (for GCM also the hash powers), which the data path does once per segment. At 4 KiB that weighs.
 * - `run seal`, `run open`: sealRun and openRun of the kernel in use over whole 4 KiB slots, as the data path does.
 * - `EVP`: node:crypto. For CTR one persistent cipher: no key expansion, but a new output Buffer for each call. For
 *   GCM a new cipher per call, since a new IV needs one there.
 * - `openssl speed`: the openssl program, a process of its own: EVP without what node:crypto adds to it.
 */
import { spawnSync } from 'node:child_process';
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { Bench } from 'tinybench';
import { median, rangeOf } from '../../src/cli/bench/statistics.js';
import { addon, type KeyHandle, RUN_OK, SUITE_CTR, SUITE_GCM } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import { progress, runGroup } from '../group.js';
import type { GroupOptions, GroupResult, Table } from '../result.js';
import { measureVectorLimit, type VectorLimit } from './vector-limit.js';

const MIB = 1 << 20;
const SIZES = [512, 4096, 65_536, MIB, 64 * MIB];
const SIZES_QUICK = [512, 4096, 65_536];
/** The portable kernel is constant-time arithmetic: a large size would only take long. */
const PORTABLE_BYTES_MAX = MIB;
const BLOCK = 4096;
const SLOT = 4128;
const CONTEXT_BYTES = 57;

type Operation = 'ctr' | 'seal' | 'open' | 'copy';

interface Task {
  readonly who: string;
  readonly what: string;
  readonly operation: Operation;
  readonly size: number;
  readonly run: () => void;
}

interface Figure {
  readonly round: number;
  readonly who: string;
  readonly what: string;
  readonly operation: Operation;
  readonly size: number;
  readonly nanoseconds: number;
}

const key = randomBytes(32);
const iv = randomBytes(12);
const counter = randomBytes(16);
const aad = randomBytes(16);

function evpTasks(size: number, src: Buffer, sealed: Buffer, tag: Buffer): Task[] {
  const evpCtr = createCipheriv('aes-256-ctr', key, counter);
  return [
    { who: 'EVP', what: 'ctr', operation: 'ctr', size, run: () => evpCtr.update(src) },
    {
      who: 'EVP',
      what: 'seal',
      operation: 'seal',
      size,
      run() {
        const gcm = createCipheriv('aes-256-gcm', key, iv);
        gcm.setAAD(aad);
        gcm.update(src);
        gcm.final();
        gcm.getAuthTag();
      },
    },
    {
      who: 'EVP',
      what: 'open',
      operation: 'open',
      size,
      run() {
        const gcm = createDecipheriv('aes-256-gcm', key, iv);
        gcm.setAAD(aad);
        gcm.setAuthTag(tag);
        gcm.update(sealed);
        gcm.final();
      },
    },
  ];
}

/** The primitives of one kernel. */
function kernelTasks(who: string, size: number, src: Buffer, sealed: Buffer, tag: Buffer): Task[] {
  const { ctr, gcmSeal, gcmOpen } = addon.primitives;
  const dst = Buffer.alloc(size);
  return [
    { who, what: 'ctr', operation: 'ctr', size, run: () => ctr(who, key, counter, src, dst) },
    { who, what: 'seal', operation: 'seal', size, run: () => gcmSeal(who, key, iv, aad, src, dst) },
    {
      who,
      what: 'open',
      operation: 'open',
      size,
      run() {
        if (!gcmOpen(who, key, iv, aad, tag, sealed, dst)) throw new Error(`${who} did not authenticate`);
      },
    },
  ];
}

/** What the data path calls: a run of slots under the key of a segment. */
function runTasks(size: number, plain: Arena, slots: Arena, deks: KeyHandle[]): Task[] {
  const blocks = size / BLOCK;
  const who = addon.cpuSelected();
  return [SUITE_CTR, SUITE_GCM].flatMap((suite): Task[] => {
    const dek = addon.keyImport(new Uint8Array(key));
    deks.push(dek);
    const segmentKey = addon.segmentKeyDerive(dek, suite, Buffer.alloc(CONTEXT_BYTES, suite));
    const name = suite === SUITE_CTR ? 'ctr' : 'gcm';
    const seal = (): void => {
      const status = addon.sealRun(segmentKey, slots.ref(0), plain.ref(0), blocks, 0, 0, 1, -1, 1);
      if (status !== RUN_OK) throw new Error(`sealRun gave ${status}`);
    };
    const open = (): void => {
      const status = addon.openRun(segmentKey, plain.ref(0), slots.ref(0), blocks, 0, 0);
      if (status !== RUN_OK) throw new Error(`openRun gave ${status}`);
    };
    // Tasks run in this order, so what `open` finds was sealed under the same suite.
    return [
      { who, what: `run seal ${name}`, operation: name === 'ctr' ? 'ctr' : 'seal', size, run: seal },
      { who, what: `run open ${name}`, operation: name === 'ctr' ? 'ctr' : 'open', size, run: open },
    ];
  });
}

function tasksFor(size: number): { tasks: Task[]; free(): void } {
  const src = randomBytes(size);
  const sealed = Buffer.alloc(size);
  const copy = Buffer.alloc(size);
  const tag = addon.primitives.gcmSeal('portable', key, iv, aad, src, sealed);
  const plain = new Arena(Math.max(size, BLOCK));
  const slots = new Arena(Math.ceil(size / BLOCK) * SLOT);
  plain.bytes.set(src);
  const deks: KeyHandle[] = [];
  const tasks: Task[] = evpTasks(size, src, sealed, tag);
  tasks.push({ who: 'memcpy', what: 'copy', operation: 'copy', size, run: () => src.copy(copy) });
  for (const { name, supported } of addon.cpuKernels()) {
    if (!supported || (name === 'portable' && size > PORTABLE_BYTES_MAX)) continue;
    tasks.push(...kernelTasks(name, size, src, sealed, tag));
  }
  // Runs are of whole blocks.
  if (size % BLOCK === 0) tasks.push(...runTasks(size, plain, slots, deks));
  return {
    tasks,
    free() {
      // Wipes the segment keys under it too.
      for (const dek of deks) addon.keyRelease(dek);
      plain.free();
      slots.free();
    },
  };
}

/** Proves that every kernel and EVP make the same bytes, so that the same work is timed. */
function verifyAgainstEvp(): void {
  const src = randomBytes(BLOCK + 13);
  const expected = createCipheriv('aes-256-ctr', key, counter).update(src);
  const gcm = createCipheriv('aes-256-gcm', key, iv);
  gcm.setAAD(aad);
  const sealed = Buffer.concat([gcm.update(src), gcm.final()]);
  const tag = gcm.getAuthTag();
  const dst = Buffer.alloc(src.length);
  for (const { name, supported } of addon.cpuKernels()) {
    if (!supported) continue;
    addon.primitives.ctr(name, key, counter, src, dst);
    if (!dst.equals(expected)) throw new Error(`${name} and EVP disagree about CTR`);
    const ownTag = addon.primitives.gcmSeal(name, key, iv, aad, src, dst);
    if (!dst.equals(sealed) || !ownTag.equals(tag)) throw new Error(`${name} and EVP disagree about GCM`);
  }
}

async function measureSize(size: number, round: number, timeMs: number): Promise<Figure[]> {
  const { tasks, free } = tasksFor(size);
  const bench = new Bench({ time: timeMs, warmupTime: timeMs / 4, iterations: 5, warmupIterations: 1 });
  for (const [i, { run }] of tasks.entries()) bench.add(String(i), run);
  await bench.run();
  free();
  return tasks.map(({ who, what, operation }, i) => {
    const { result } = bench.tasks[i];
    if (result.state !== 'completed') throw new Error(`${who} ${what} of ${size} bytes: ${result.state}`);
    return { who, what, operation, size, round, nanoseconds: result.latency.p50 * 1e6 };
  });
}

/** The openssl program's own figures; none where it is missing. */
function opensslSpeed(size: number, round: number): Figure[] {
  const figures: Figure[] = [];
  const runs: [Operation, string, string[]][] = [
    ['ctr', 'aes-256-ctr', []],
    ['seal', 'aes-256-gcm', []],
    ['open', 'aes-256-gcm', ['-decrypt']],
  ];
  for (const [operation, cipher, flags] of runs) {
    const args = ['speed', '-mr', '-seconds', '1', '-bytes', String(size), ...flags, '-evp', cipher];
    const { status, stdout } = spawnSync('openssl', args, { encoding: 'utf8', timeout: 30_000 });
    const bytesPerSecond = Number(/^\+F:\d+:[^:]+:([\d.]+)/m.exec(stdout ?? '')?.[1] ?? 0);
    if (status !== 0 || bytesPerSecond === 0) return [];
    const nanoseconds = (size / bytesPerSecond) * 1e9;
    figures.push({ who: 'openssl speed', what: operation, operation, size, round, nanoseconds });
  }
  return figures;
}

/** Times of one task over the rounds, in their order. */
function timesOf(
  figures: readonly Figure[],
  { who, what, size }: Omit<Figure, 'round' | 'nanoseconds'>,
): number[] {
  return figures
    .filter((other) => other.who === who && other.what === what && other.size === size)
    .map(({ nanoseconds }) => nanoseconds);
}

function tableOf(figures: readonly Figure[]): Table {
  const first = figures.filter(({ round }) => round === 0);
  const ratio = (own: Figure, who: string, what: string): number | string => {
    const peer = timesOf(figures, { ...own, who, what });
    if (peer.length === 0) return '';
    return median(timesOf(figures, own).map((nanoseconds, round) => peer[round] / nanoseconds));
  };
  return {
    title: 'AES-256 kernels',
    columns: [
      { key: 'who', label: 'implementation' },
      { key: 'what', label: 'operation' },
      { key: 'kib', label: 'KiB' },
      { key: 'timesEvp', label: '× EVP (node:crypto)', digits: 2 },
      { key: 'timesOpenssl', label: '× openssl speed', digits: 2 },
      { key: 'timesMemcpy', label: '× memcpy', digits: 2 },
      { key: 'gbPerS', label: 'GB/s', digits: 2 },
      { key: 'range', label: 'range' },
      { key: 'nanoseconds', label: 'median ns', digits: 0 },
    ],
    rows: first.map((own) => {
      const { who, what, operation, size } = own;
      const times = timesOf(figures, own);
      const nanoseconds = median(times);
      return {
        who,
        what,
        kib: size / 1024,
        timesEvp: ratio(own, 'EVP', operation),
        timesOpenssl: ratio(own, 'openssl speed', operation),
        timesMemcpy: ratio(own, 'memcpy', 'copy'),
        gbPerS: size / nanoseconds,
        range: rangeOf(
          times.map((each) => size / each),
          2,
        ),
        nanoseconds,
      };
    }),
  };
}

const VECTOR_KERNEL = 'vaes512';

/** The best of a kernel beside what its instructions allow, the operands being in registers. */
function limitTable(figures: readonly Figure[], limit: VectorLimit): Table {
  const best = (what: string, size: number): number => {
    const times = timesOf(figures, { who: VECTOR_KERNEL, what, size, operation: 'ctr' });
    return size / median(times);
  };
  const sizes = [...new Set(figures.map(({ size }) => size))].filter((size) => size >= BLOCK && size <= MIB);
  return {
    title: 'What the processor can do at most',
    columns: [
      { key: 'what', label: `operation of ${VECTOR_KERNEL}` },
      { key: 'kib', label: 'KiB' },
      { key: 'gbPerS', label: 'GB/s', digits: 2 },
      { key: 'limit', label: 'at most, GB/s', digits: 2 },
      { key: 'share', label: 'share', digits: 2 },
    ],
    rows: (['ctr', 'seal', 'open'] as const).flatMap((what) =>
      sizes.map((size) => {
        const most = what === 'ctr' ? limit.ctr : limit.gcm;
        const gbPerS = best(what, size);
        return { what, kib: size / 1024, gbPerS, limit: most, share: gbPerS / most };
      }),
    ),
  };
}

async function measure({ quick, rounds }: GroupOptions): Promise<GroupResult> {
  verifyAgainstEvp();
  const figures: Figure[] = [];
  const all = quick ? 1 : rounds;
  for (const size of quick ? SIZES_QUICK : SIZES) {
    for (let round = 0; round < all; round++) {
      progress(`kernels: ${size} bytes, round ${round + 1} of ${all}`);
      figures.push(...(await measureSize(size, round, quick ? 5 : 100)));
      if (!quick) figures.push(...opensslSpeed(size, round));
    }
  }
  const isVector = addon.cpuKernels().some(({ name, supported }) => name === VECTOR_KERNEL && supported);
  const limit = isVector ? measureVectorLimit() : undefined;
  return {
    notes: [
      'Every kernel and EVP made the same bytes before anything was timed.',
      `${all} round(s), in each of which every implementation has its turn; a ratio is taken within a round, and the table gives medians, and the range of the throughput.`,
      'A kernel’s `ctr`, `seal` and `open` include the call from JavaScript and the key expansion (and, for GCM, the hash powers) every time; `run seal` and `run open` are what the data path calls, on whole slots under an expanded key, with their trailers.',
      'EVP through `node:crypto` allocates its output in every call, since `update()` can’t write to memory that it is given, and for GCM it makes a cipher too; memory touched for the first time dominates it at large sizes. `openssl speed` is EVP without that, in a process of its own, with no additional data.',
      'What the processor can do at most is measured, on registers alone, by `bench/micro/vector-limit.cc`: 14 `vaesenc` for each 64 bytes, and for GCM four `vpclmulqdq` more. No kernel of this instruction set can be faster, and a target above it can’t be reached on this processor.',
    ],
    tables: [tableOf(figures), ...(limit === undefined ? [] : [limitTable(figures, limit)])],
  };
}

await runGroup(measure);
