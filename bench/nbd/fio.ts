/** fio over NBD: its JSON, reduced to what the tables need. Anything that went wrong is an error. */
import { type Programs, run } from './processes.js';
import type { Row } from './rows.js';

const TIMEOUT_MS = 120_000;

export interface Figures {
  readonly operations: number;
  readonly bytes: number;
  readonly iops: number;
  readonly mibPerS: number;
  readonly p50us: number;
  readonly p99us: number;
}

interface Direction {
  readonly io_bytes: number;
  readonly iops: number;
  readonly bw_bytes: number;
  readonly total_ios: number;
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
}

interface Report {
  readonly jobs: readonly { readonly error: number; readonly read: Direction; readonly write: Direction }[];
}

/** Runs one workload for a time. */
export async function measureRow(
  programs: Programs,
  uri: string,
  row: Row,
  sizeBytes: number,
  timeMs: number,
): Promise<Figures> {
  return reduce(
    await fio(programs, uri, [
      `--rw=${row.rw}`,
      `--bs=${row.blockBytes}`,
      `--iodepth=${row.depth}`,
      `--numjobs=${row.connections}`,
      '--group_reporting',
      '--time_based',
      `--runtime=${timeMs}ms`,
      `--size=${sizeBytes}`,
      '--norandommap',
      ...row.extra,
    ]),
  );
}

/** Writes every block once, in order; with `verify`, patterns with checksums that are read back afterwards. */
export async function fill(
  programs: Programs,
  uri: string,
  sizeBytes: number,
  verify: boolean,
): Promise<void> {
  const args = ['--rw=write', '--bs=1M', '--iodepth=8', `--size=${sizeBytes}`];
  const report = await fio(
    programs,
    uri,
    verify ? [...args, '--verify=crc32c', '--do_verify=1', '--verify_state_save=0'] : args,
  );
  const { read, write } = report.jobs[0];
  if (write.io_bytes !== sizeBytes)
    throw new Error(`${uri}: ${write.io_bytes} bytes of ${sizeBytes} written`);
  if (verify && read.io_bytes !== sizeBytes) {
    throw new Error(`${uri}: ${read.io_bytes} bytes of ${sizeBytes} verified`);
  }
}

async function fio(programs: Programs, uri: string, args: readonly string[]): Promise<Report> {
  // Buffers are random once: making them anew for every write would time fio instead.
  const common = ['--name=bench', '--ioengine=nbd', `--uri=${uri}`, '--output-format=json'];
  const { stdout } = await run(programs, 'fio', [...common, ...args], TIMEOUT_MS);
  // fio says "connected" on stdout before its JSON begins.
  const report = JSON.parse(stdout.slice(stdout.indexOf('{'))) as Report;
  for (const job of report.jobs) if (job.error !== 0) throw new Error(`fio: error ${job.error} on ${uri}`);
  return report;
}

function reduce(report: Report): Figures {
  const { read, write } = report.jobs[0];
  const operations = read.total_ios + write.total_ios;
  if (operations === 0) throw new Error('fio did nothing');
  // A mix is told by its reads' latency: writes end in a buffer.
  const { percentile } = (read.total_ios > 0 ? read : write).clat_ns;
  return {
    operations,
    bytes: read.io_bytes + write.io_bytes,
    iops: read.iops + write.iops,
    mibPerS: (read.bw_bytes + write.bw_bytes) / 2 ** 20,
    p50us: (percentile?.['50.000000'] ?? 0) / 1000,
    p99us: (percentile?.['99.000000'] ?? 0) / 1000,
  };
}
