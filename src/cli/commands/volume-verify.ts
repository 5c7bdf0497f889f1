import type { Command } from 'commander';
import type { JobInfo } from '../../admin/schemas.js';
import { BLOCK_BYTES } from '../../base/limits.js';
import { formatSize } from '../../base/units.js';
import { clientFor, type ListingOptions } from '../context.js';
import { EXIT, exitCodeOfErrorCode } from '../exit-codes.js';
import { note, print, printJson } from '../output.js';
import { watchJob } from '../watch-job.js';

interface VerifyOptions extends ListingOptions {
  readonly detach?: boolean;
}

/** Exits 5 where anything stored does not authenticate. */
export async function volumeVerify(name: string, options: VerifyOptions, command: Command): Promise<void> {
  const client = clientFor(command);
  const started = await client.verifyVolume(name);
  if (options.detach === true) {
    if (options.json) return printJson(started);
    return print(`job ${started.id}`);
  }
  const job = await watchJob(client, started);
  process.exitCode = exitCodeOfJob(job);
  if (options.json) return printJson(job);
  report(job);
}

export function exitCodeOfJob(job: JobInfo): number {
  if (job.state === 'failed') return exitCodeOfErrorCode(job.error?.code ?? 'FAILED');
  if (job.state !== 'done' || job.result === null) return EXIT.failed;
  return job.result.lost.length + job.result.problems.length > 0 ? EXIT.integrity : EXIT.done;
}

function report(job: JobInfo): void {
  if (job.result === null) {
    note(`${job.volume}: ${job.state}${job.error === null ? '' : `: ${job.error.message}`}`);
    return;
  }
  const { checkedBlocks, lost, problems } = job.result;
  print(`${job.volume}: ${checkedBlocks} blocks checked (${formatSize(checkedBlocks * BLOCK_BYTES)})`);
  for (const { offset, length } of lost) print(`lost: offset ${offset}, length ${length}`);
  for (const problem of problems) print(`problem: ${problem}`);
  if (lost.length + problems.length === 0) print('all of them authenticate');
}
