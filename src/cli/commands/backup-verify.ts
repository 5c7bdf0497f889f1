import { SingleBar } from 'cli-progress';
import type { Command } from 'commander';
import { verifyOffline } from '../../backup/offline.js';
import { dataDirectory } from '../../base/data-directory.js';
import { formatSize } from '../../base/units.js';
import { dataOption, type ListingOptions } from '../context.js';
import { EXIT } from '../exit-codes.js';
import { print, printJson } from '../output.js';

interface VerifyOptions extends ListingOptions {
  readonly requireKey?: boolean;
}

/** Exits 5 where anything is damaged; with --require-key 4 where nothing is, and no key proves all of it. */
export async function backupVerify(path: string, options: VerifyOptions, command: Command): Promise<void> {
  const directory = dataDirectory(dataOption(command), process.env, process.cwd());
  const bar = new SingleBar({
    stream: process.stderr,
    format: 'verify [{bar}] {percentage}% {done} of {all}',
  });
  const shown = (done: number, all: number) => ({ done: formatSize(done), all: formatSize(all) });
  bar.start(0, 0, shown(0, 0));
  const report = await verifyOffline(path, directory, (done, all) => {
    bar.setTotal(all);
    bar.update(done, shown(done, all));
  }).finally(() => bar.stop());
  if (report.problems.length > 0) process.exitCode = EXIT.integrity;
  else if (options.requireKey && !report.authenticated) process.exitCode = EXIT.keyUnavailable;
  if (options.json) return printJson(report);
  for (const problem of report.problems) print(`problem: ${problem}`);
  if (report.problems.length > 0) return;
  print(`${report.path}: ${report.checkedBlocks} blocks checked`);
  if (report.authenticated) return print('all of them authenticate');
  print(`structure and checksums are in order; NOT authenticated: ${report.keyProblem}`);
}
