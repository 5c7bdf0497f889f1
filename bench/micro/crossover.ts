/**
 * From which run length on is a run better sealed, or read and opened, by the pool than on the main thread? Each
 * kernel is measured in a process of its own, by crossover-kernel.ts.
 */
import { fileURLToPath } from 'node:url';
import { addon } from '../../src/native/addon.js';
import { defaultTuning } from '../../src/volume/tuning.js';
import { progress, runGroup, spawnGroup } from '../group.js';
import type { Cell, GroupOptions, GroupResult } from '../result.js';

const KERNEL_FILE = fileURLToPath(new URL('./crossover-kernel.js', import.meta.url));
const KERNEL_TIMEOUT_MS = 240_000;
/** The pool must win by more than this, or its extra latency and memory traffic buy nothing. */
const WORTH_IT = 1.05;
const VOLUME_BYTES = 2 ** 40;

type Row = Readonly<Record<string, Cell>>;

/** The shortest run from which on the pool moves more than the main thread alone, at every longer one too. */
function crossoverKib(rows: readonly Row[], kernel: string, op: string, threads: number): number | 'none' {
  const of = rows.filter((row) => row.kernel === kernel && row.op === op);
  const sizes = [...new Set(of.map((row) => Number(row.kib)))].sort((a, b) => b - a);
  let crossover: number | 'none' = 'none';
  for (const kib of sizes) {
    const gigabytes = (who: string): number =>
      Number(of.find((row) => row.kib === kib && row.where === who)?.busyGbPerS);
    if (gigabytes(`pool ${threads}`) < gigabytes('inline') * WORTH_IT) break;
    crossover = kib;
  }
  return crossover;
}

function crossovers(rows: readonly Row[]): Row[] {
  const result: Row[] = [];
  const kernels = [...new Set(rows.map((row) => String(row.kernel)))];
  const pools = [...new Set(rows.map((row) => String(row.where)))].filter((who) => who !== 'inline');
  for (const kernel of kernels) {
    const tuning = defaultTuning(VOLUME_BYTES, kernel);
    for (const op of ['seal', 'read']) {
      for (const pool of pools) {
        const threads = Number(pool.replace('pool ', ''));
        const defaultKib = (op === 'seal' ? tuning.poolSealBytes : tuning.poolReadBytes) / 1024;
        const crossover = crossoverKib(rows, kernel, op, threads);
        result.push({ kernel, op, threads, crossover, default: defaultKib });
      }
    }
  }
  return result;
}

async function measure(options: GroupOptions): Promise<GroupResult> {
  const supported = addon.cpuKernels().filter((kernel) => kernel.supported);
  const kernels = options.quick ? [addon.cpuSelected()] : supported.map((kernel) => kernel.name);
  const rows: Row[] = [];
  for (const kernel of kernels) {
    progress(`crossover: ${kernel}`);
    const part = await spawnGroup(KERNEL_FILE, options, KERNEL_TIMEOUT_MS, { SEALBD_CPU: kernel });
    rows.push(...part.tables[0].rows);
  }
  return {
    notes: [
      'Alone: one run at a time, nothing else to do; the latency that the pool adds.',
      'Busy: 8 runs under way while the main thread also reads as many bytes from the page cache as each run has, as a server that receives or sends them must. The places take turns in every round, and the medians count. The crossover is the shortest run from which on the pool moves at least 5 % more, at every longer run too (`none`: at no size).',
      'The runs are aes-256-gcm; `read` finds its slots in the page cache. `pool_seal_from`, `pool_read_from` and `pool_threads` of the configuration set what the default column shows.',
      'The pool can only win where a core is free for it: on a machine whose cores the clients fill as well, the crossover lies higher than here.',
    ],
    tables: [
      {
        title: 'Crossover between inline and pool',
        columns: [
          { key: 'kernel', label: 'kernel' },
          { key: 'op', label: 'run' },
          { key: 'threads', label: 'pool threads' },
          { key: 'crossover', label: 'crossover KiB' },
          { key: 'default', label: 'default KiB' },
        ],
        rows: crossovers(rows),
      },
      {
        title: 'Inline and pool by run length',
        columns: [
          { key: 'kernel', label: 'kernel' },
          { key: 'op', label: 'run' },
          { key: 'kib', label: 'KiB' },
          { key: 'where', label: 'where' },
          { key: 'aloneP50us', label: 'alone p50 µs', digits: 1 },
          { key: 'aloneP99us', label: 'alone p99 µs', digits: 1 },
          { key: 'busyP50us', label: 'busy p50 µs', digits: 1 },
          { key: 'busyP99us', label: 'busy p99 µs', digits: 1 },
          { key: 'busyGbPerS', label: 'busy GB/s', digits: 2 },
        ],
        rows,
      },
    ],
  };
}

await runGroup(measure);
