/**
 * npm run bench -- [--group NAME]... [--quick] [--rounds N] [--dir DIR] [--out FILE] [--publish]
 *
 * Runs groups of benchmarks, each in a fresh process, and keeps the figures with their conditions as JSON: in
 * bench/results/, or where --out says; charts lie beside it as SVG. With --publish the figures of each group go to
 * docs/benchmarks/<group>.json, charts beside them, and docs/BENCHMARKS.md is written anew from all files there. Any
 * error fails the run.
 */
import { loadavg, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { writeReported } from './files.js';
import type { BenchFile, GroupOptions, GroupResult } from './result.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
// This program is compiled to build/, where the addon does not look for itself.
process.env.SEALBD_TESTING = '1';
process.env.SEALBD_ADDON ??= join(ROOT, 'build/Release/sealbd.node');

const MINUTE_MS = 60_000;
const ROUNDS_DEFAULT = 5;
const ROUNDS_MAX = 100;

const GROUPS: Readonly<Record<string, { readonly file: string; readonly timeoutMs: number }>> = {
  kernels: { file: 'micro/kernels.js', timeoutMs: 30 * MINUTE_MS },
  crossover: { file: 'micro/crossover.js', timeoutMs: 15 * MINUTE_MS },
  map: { file: 'micro/map.js', timeoutMs: 15 * MINUTE_MS },
  kdf: { file: 'micro/kdf.js', timeoutMs: MINUTE_MS },
  codec: { file: 'micro/codec.js', timeoutMs: MINUTE_MS },
  nbd: { file: 'nbd/nbd.js', timeoutMs: 120 * MINUTE_MS },
  growth: { file: 'growth/growth.js', timeoutMs: 60 * MINUTE_MS },
  rotation: { file: 'nbd/rotation.js', timeoutMs: 30 * MINUTE_MS },
  fairness: { file: 'nbd/fairness.js', timeoutMs: 15 * MINUTE_MS },
  profile: { file: 'nbd/profile.js', timeoutMs: 30 * MINUTE_MS },
  backup: { file: 'volume/backup.js', timeoutMs: 15 * MINUTE_MS },
};

interface CommandLine {
  readonly groups: readonly string[];
  readonly options: GroupOptions;
  readonly out: string | undefined;
  readonly publish: boolean;
}

class UsageError extends Error {}

function parseCommandLine(args: readonly string[]): CommandLine {
  const { values } = parseArgs({
    args: [...args],
    options: {
      group: { type: 'string', multiple: true },
      quick: { type: 'boolean', default: false },
      rounds: { type: 'string', default: String(ROUNDS_DEFAULT) },
      dir: { type: 'string', default: tmpdir() },
      out: { type: 'string' },
      publish: { type: 'boolean', default: false },
    },
  });
  const groups = values.group ?? Object.keys(GROUPS);
  for (const name of groups) {
    if (!(name in GROUPS)) {
      throw new UsageError(`--group ${name}: expected one of ${Object.keys(GROUPS).join(', ')}`);
    }
  }
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > ROUNDS_MAX) {
    throw new UsageError(`--rounds ${values.rounds}: expected a whole number from 1 to ${ROUNDS_MAX}`);
  }
  if (values.quick && values.publish) throw new UsageError('--publish: figures of --quick mean nothing');
  const options = { quick: values.quick, rounds, directory: resolve(values.dir) };
  return { groups, options, out: values.out, publish: values.publish };
}

async function runGroups({ groups, options }: CommandLine): Promise<BenchFile> {
  // Loaded late: they need the addon, which the environment set above names.
  const { spawnGroup } = await import('./group.js');
  const { gatherConditions } = await import('./conditions.js');
  const conditions = gatherConditions(ROOT, options.directory);
  const results: Record<string, GroupResult & { seconds: number }> = {};
  for (const name of groups) {
    const { file, timeoutMs } = GROUPS[name];
    const start = performance.now();
    const result = await spawnGroup(fileURLToPath(new URL(file, import.meta.url)), options, timeoutMs);
    results[name] = { ...result, seconds: Math.round((performance.now() - start) / 1000) };
  }
  const command = ['npm run bench --', ...process.argv.slice(2)].join(' ');
  return {
    format: 1,
    command,
    quick: options.quick,
    conditions,
    loadAverageAfter: loadavg(),
    groups: results,
  };
}

async function main(): Promise<void> {
  const commandLine = parseCommandLine(process.argv.slice(2));
  const result = await runGroups(commandLine);
  const { renderResult } = await import('./report.js');
  const { chartsOf } = await import('./charts.js');
  const { publish } = await import('./publish.js');
  const charts = chartsOf(result);
  const name = result.conditions.date.replace(/:/g, '').replace(/\.\d+/, '');
  const out = commandLine.out ?? join(ROOT, 'bench/results', `${name}.json`);
  writeReported(out, `${JSON.stringify(result, null, 1)}\n`);
  const links = charts.map(({ title, name: chart }) => ({
    title,
    path: `${out.replace(/\.json$/, '')}-${chart}.svg`,
  }));
  for (const [i, { svg }] of charts.entries()) writeReported(links[i].path, svg);
  process.stdout.write(renderResult([result], links));
  if (commandLine.publish) publish(ROOT, result);
}

try {
  await main();
} catch (error) {
  const usage =
    error instanceof UsageError || (error as NodeJS.ErrnoException).code?.startsWith('ERR_PARSE_ARGS');
  console.error(usage ? `bench: ${(error as Error).message}` : error);
  process.exitCode = usage ? 2 : 1;
}
