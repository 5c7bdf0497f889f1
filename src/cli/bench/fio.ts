/** fio over NBD: its JSON, reduced to what the tables need. Anything that went wrong is an error. */
import { execFile } from 'node:child_process';
import { errnoOf, SealbdError } from '../../base/errors.js';
import { isReadOnly, type Workload } from './workloads.js';

const START_ALLOWANCE_MS = 60_000;
const OUTPUT_BYTES_MAX = 16 * 1024 * 1024;
const SAID_CHARS_MAX = 2000;

export interface Figures {
  readonly operations: number;
  readonly bytes: number;
  readonly iops: number;
  readonly mibPerS: number;
  readonly p50us: number;
  readonly p99us: number;
  /** Processor time of fio for each request, µs. */
  readonly clientCpuUs: number;
}

/** Ends the program at once, with SIGKILL, when it is aborted. */
export interface FioOptions {
  readonly uri: string;
  /** The part of the export that is used, from its beginning. */
  readonly sizeBytes: number;
  readonly signal: AbortSignal;
}

interface Direction {
  readonly io_bytes: number;
  readonly iops: number;
  readonly bw_bytes: number;
  readonly total_ios: number;
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

interface Report {
  readonly jobs: readonly {
    readonly error: number;
    readonly read: Direction;
    readonly write: Direction;
    /** Per cent of `job_runtime`, which is the sum of all jobs, in ms. */
    readonly usr_cpu: number;
    readonly sys_cpu: number;
    readonly job_runtime: number;
  }[];
}

/** Runs one workload for a time. */
export async function measureWorkload(
  options: FioOptions,
  workload: Workload,
  timeMs: number,
): Promise<Figures> {
  const args = [
    `--rw=${workload.rw}`,
    `--bs=${workload.blockBytes}`,
    `--iodepth=${workload.depth}`,
    `--numjobs=${workload.connections}`,
    '--group_reporting',
    '--time_based',
    `--runtime=${timeMs}ms`,
    '--norandommap',
    // Other blocks in every trial: a log likes nothing better than the same ones again.
    '--randrepeat=0',
    ...(isReadOnly(workload) ? ['--readonly'] : []),
    ...workload.extra,
  ];
  return reduce(await fio(options, args, timeMs + START_ALLOWANCE_MS));
}

/** Writes every block once, in order; with `verify`, patterns with checksums that are read back afterwards. */
export async function fill(options: FioOptions, verify: boolean, timeoutMs: number): Promise<void> {
  const { uri, sizeBytes } = options;
  const checks = verify ? ['--verify=crc32c', '--do_verify=1', '--verify_state_save=0'] : [];
  const report = await fio(options, ['--rw=write', '--bs=1M', '--iodepth=8', ...checks], timeoutMs);
  const { read, write } = report.jobs[0];
  assertBytes(uri, 'written', write.io_bytes, sizeBytes);
  if (verify) assertBytes(uri, 'verified', read.io_bytes, sizeBytes);
}

/** Reads every block once, in order, so that what can be in a cache is. */
export async function readAll(options: FioOptions, timeoutMs: number): Promise<void> {
  const report = await fio(options, ['--rw=read', '--bs=1M', '--iodepth=8', '--readonly'], timeoutMs);
  assertBytes(options.uri, 'read', report.jobs[0].read.io_bytes, options.sizeBytes);
}

function assertBytes(uri: string, what: string, bytes: number, expected: number): void {
  if (bytes !== expected) throw new SealbdError('FAILED', `${uri}: ${bytes} bytes of ${expected} ${what}`);
}

async function fio(options: FioOptions, args: readonly string[], timeoutMs: number): Promise<Report> {
  const { uri, sizeBytes } = options;
  // Buffers are random once: making them anew for every write would time fio instead.
  const common = ['--name=bench', '--ioengine=nbd', `--uri=${uri}`, `--size=${sizeBytes}`];
  const stdout = await run([...common, '--output-format=json', ...args], options.signal, timeoutMs);
  // fio says "connected" on stdout before its JSON begins.
  const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as Report;
  for (const { error } of report.jobs) {
    if (error !== 0) throw new SealbdError('FAILED', `fio: error ${error} on ${uri}`);
  }
  return report;
}

function run(args: readonly string[], signal: AbortSignal, timeoutMs: number): Promise<string> {
  const limits = { timeout: timeoutMs, killSignal: 'SIGKILL', maxBuffer: OUTPUT_BYTES_MAX } as const;
  return new Promise((resolve, reject) => {
    execFile('fio', args, { ...limits, signal, encoding: 'utf8' }, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout);
      if (signal.aborted) return reject(new SealbdError('FAILED', 'interrupted'));
      if (errnoOf(error) === 'ENOENT') return reject(new SealbdError('FAILED', FIO_MISSING));
      const how = error.killed === true ? `took more than ${timeoutMs} ms` : `ended with ${error.code}`;
      const said = `${stdout}\n${stderr}`.trim().slice(-SAID_CHARS_MAX);
      reject(new SealbdError('FAILED', `fio ${args.join(' ')} ${how}\n${said}`));
    });
  });
}

export const FIO_MISSING =
  'fio is not installed; the benchmark drives the volume with it (Debian and Ubuntu: apt-get install fio)';

function reduce(report: Report): Figures {
  const { read, write, usr_cpu: user, sys_cpu: system, job_runtime: runtimeMs } = report.jobs[0];
  const operations = read.total_ios + write.total_ios;
  if (operations === 0) throw new SealbdError('FAILED', 'fio did nothing');
  // A mix is told by its reads' latency: writes end in a buffer.
  const { percentile } = (read.total_ios > 0 ? read : write).clat_ns;
  return {
    operations,
    bytes: read.io_bytes + write.io_bytes,
    iops: read.iops + write.iops,
    mibPerS: (read.bw_bytes + write.bw_bytes) / 2 ** 20,
    p50us: (percentile?.['50.000000'] ?? 0) / 1000,
    p99us: (percentile?.['99.000000'] ?? 0) / 1000,
    clientCpuUs: (((user + system) / 100) * runtimeMs * 1000) / operations,
  };
}
