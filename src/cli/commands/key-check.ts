import type { Command } from 'commander';
import { clientFor, type ListingOptions } from '../context.js';
import { EXIT } from '../exit-codes.js';
import { print, printJson, printTable } from '../output.js';

/** Exits 4 where anything that is needed does not work. */
export async function keyCheck(uri: string, options: ListingOptions, command: Command): Promise<void> {
  const report = await clientFor(command).checkKey(uri);
  if (!report.ok) process.exitCode = EXIT.keyUnavailable;
  if (options.json) return printJson(report);
  print(`${report.keyUri}: ${report.resolvedKeyId ?? 'not resolved'}`);
  printTable(
    ['step', 'outcome'],
    report.steps.map(({ permission, outcome }) => [permission, outcome]),
  );
  // Too long for a table.
  for (const { permission, error, fix } of report.steps) {
    if (error !== undefined) print(`${permission}: ${error}`);
    if (fix !== undefined) print(`fix: ${fix}`);
  }
  for (const warning of report.warnings) print(`warning: ${warning}`);
  print(report.ok ? 'the key can be used' : 'the key can NOT be used as it is');
}
