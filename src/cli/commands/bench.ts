/** What encryption costs on this machine, measured through the running daemon. */
import { cpus, loadavg } from 'node:os';
import type { Command } from 'commander';
import type { AdminClient } from '../../admin/client.js';
import type { DaemonStatus, VolumeInfo } from '../../admin/schemas.js';
import type { CipherName } from '../../base/ciphers.js';
import { SealbdError } from '../../base/errors.js';
import { formatSize } from '../../base/units.js';
import { nbdUri } from '../../daemon/addresses.js';
import { interruptible } from '../bench/interruption.js';
import { measure, type Plan, type Subject } from '../bench/measure.js';
import { type BenchReport, printReport, summaryOf } from '../bench/report.js';
import { withTemporaryVolumes } from '../bench/temporary-volumes.js';
import type { Trial } from '../bench/trials.js';
import { isReadOnly, WORKLOADS } from '../bench/workloads.js';
import { clientFor, type ListingOptions } from '../context.js';
import { printJson } from '../output.js';

interface BenchOptions extends ListingOptions {
  readonly seconds: string;
  readonly write?: boolean;
  readonly quick?: boolean;
}

const MIB = 1024 * 1024;
/** What is used of a volume: enough to leave the processor's caches, and to be filled in seconds. */
const SIZE_BYTES = 512 * MIB;
const ROUNDS = 3;
const QUICK = { sizeBytes: 32 * MIB, rounds: 1, seconds: 0.1 };
const SECONDS_MAX = 600;
const CIPHERS: readonly CipherName[] = ['aes-256-gcm', 'none'];

type Extent = Pick<Plan, 'rounds' | 'trialMs'> & { readonly sizeBytes: number };

interface Outcome {
  readonly subjects: BenchReport['subjects'];
  readonly sizeBytes: number;
  readonly trials: readonly Trial[];
  readonly notes: readonly string[];
}

export async function bench(
  name: string | undefined,
  options: BenchOptions,
  command: Command,
): Promise<void> {
  const seconds = Number(options.seconds);
  if (!(seconds > 0 && seconds <= SECONDS_MAX)) {
    throw new SealbdError(
      'USAGE',
      `--seconds: "${options.seconds}" is not a number of seconds up to ${SECONDS_MAX}`,
    );
  }
  if (options.write === true && name === undefined) {
    throw new SealbdError(
      'USAGE',
      '--write overwrites a volume that you name; temporary volumes are written anyway',
    );
  }
  const quick = options.quick === true;
  const extent: Extent = quick
    ? { sizeBytes: QUICK.sizeBytes, rounds: QUICK.rounds, trialMs: QUICK.seconds * 1000 }
    : { sizeBytes: SIZE_BYTES, rounds: ROUNDS, trialMs: Math.ceil(seconds * 1000) };
  const client = clientFor(command);
  const daemon = await client.status();
  const conditions = {
    ...{ version: daemon.version, date: new Date().toISOString(), quick, rounds: extent.rounds },
    ...{ seconds: extent.trialMs / 1000, cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: cpus().length },
    loadAverage: loadavg(),
  };
  const { trials, ...outcome } = await interruptible((signal) =>
    name === undefined
      ? benchTemporary(client, daemon, extent, signal)
      : benchNamed(client, daemon, name, options.write === true, extent, signal),
  );
  const report: BenchReport = { ...conditions, ...outcome, ...summaryOf(trials, outcome.subjects) };
  if (options.json) return printJson(report);
  printReport(report);
}

/** An encrypted volume beside one in plaintext, both of which are deleted afterwards. */
function benchTemporary(
  client: AdminClient,
  daemon: DaemonStatus,
  { sizeBytes, ...extent }: Extent,
  signal: AbortSignal,
): Promise<Outcome> {
  return withTemporaryVolumes(client, CIPHERS, sizeBytes, async (names) => {
    const subjects = names.map((volume): Subject => ({ volume, uri: uriOf(daemon, volume), sizeBytes }));
    const trials = await measure({ ...extent, subjects, workloads: WORKLOADS, fill: true }, signal);
    const shown = names.map((volume, i) => ({ volume, cipher: CIPHERS[i] }));
    return { subjects: shown, sizeBytes, trials, notes: [] };
  });
}

async function benchNamed(
  client: AdminClient,
  daemon: DaemonStatus,
  name: string,
  write: boolean,
  extent: Extent,
  signal: AbortSignal,
): Promise<Outcome> {
  const volume = await client.volumeInfo(name);
  if (volume.state !== 'serving' || volume.sizeBytes === null) {
    throw new SealbdError('CONFLICT', `volume "${name}" is ${volume.state}${reasonOf(volume)}`);
  }
  if (write && volume.clients > 0) {
    throw new SealbdError(
      'CONFLICT',
      `volume "${name}" has attached clients (${volume.clients}): --write would overwrite their data`,
    );
  }
  // Whole mebibytes: the largest request of a workload.
  const sizeBytes = Math.min(Math.floor(volume.sizeBytes / MIB) * MIB, extent.sizeBytes);
  if (sizeBytes === 0)
    throw new SealbdError('CONFLICT', `volume "${name}" is shorter than ${formatSize(MIB)}`);
  const workloads = write ? WORKLOADS : WORKLOADS.filter(isReadOnly);
  const subjects = [{ volume: name, uri: uriOf(daemon, name), sizeBytes }];
  const trials = await measure({ ...extent, subjects, workloads, fill: write }, signal);
  const shown = [{ volume: name, cipher: volume.cipher }];
  return { subjects: shown, sizeBytes, trials, notes: write ? [] : notesOnReading(volume) };
}

/** What was never written is read as zeros, from no file and through no cipher. */
function notesOnReading({ mappedBytes, sizeBytes }: VolumeInfo): string[] {
  const share = (mappedBytes ?? 0) / (sizeBytes ?? 1);
  const mapped = `${(share * 100).toFixed(0)} % of the volume is mapped`;
  return share > 0.99 ? [] : [`${mapped}; reading the rest costs no cipher, so figures may be too good`];
}

function reasonOf({ reason }: VolumeInfo): string {
  return reason === null ? '' : `: ${reason}`;
}

function uriOf(daemon: DaemonStatus, volume: string): string {
  const [address] = daemon.listen;
  if (address === undefined) throw new SealbdError('FAILED', 'the daemon listens on no NBD address');
  if (daemon.tls === 'required') {
    throw new SealbdError(
      'FAILED',
      'the daemon requires TLS, which fio cannot speak; measure with --tls allowed, or on a daemon beside it',
    );
  }
  return nbdUri(address, volume);
}
