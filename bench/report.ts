/** Results as Markdown. */
import { BUSY_SHARE } from '../src/cli/bench/report.js';
import {
  type BenchFile,
  type Cell,
  type Column,
  type GroupResult,
  NOT_INSTALLED,
  type Table,
} from './result.js';
import { targetTable } from './targets.js';

const TITLES: Readonly<Record<string, string>> = {
  kernels: 'Kernels',
  crossover: 'Inline or pool',
  map: 'Block map',
  kdf: 'Key derivation',
  codec: 'Wire codec',
  growth: 'Growth',
  nbd: 'Over NBD',
  rotation: 'Re-encryption beside clients',
};

function show(value: Cell | undefined, { digits }: Column): string {
  if (typeof value === 'number') return digits === undefined ? String(value) : value.toFixed(digits);
  return value ?? '';
}

function renderTable({ title, columns, rows }: Table): string {
  // Numbers line up on the right.
  const ruler = columns.map(({ key }) => (rows.some((row) => typeof row[key] === 'number') ? '---:' : '---'));
  const lines = [columns.map(({ label }) => label), ruler].concat(
    rows.map((row) => columns.map((column) => show(row[column.key], column))),
  );
  return `**${title}**\n\n${lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')}\n`;
}

function renderGroup(name: string, { notes, tables }: GroupResult): string {
  const shown = tables.filter((table) => table.raw !== true);
  const parts = [...notes.map((note) => `- ${note}`)].join('\n');
  return `## ${TITLES[name] ?? name}\n\n${parts}\n\n${shown.map(renderTable).join('\n')}`;
}

function renderConditions({ command, conditions, loadAverageAfter, quick }: BenchFile): string {
  const { programs, cpuFlags, loadAverageBefore } = conditions;
  const load = (values: readonly number[]): string => values.map((value) => value.toFixed(2)).join(' ');
  const gib = (conditions.memoryBytes / 2 ** 30).toFixed(0);
  const lines: [string, string][] = [
    ['command', `\`${command}\``],
    ['date', conditions.date],
    ['sealbd', `${conditions.sealbd}, commit ${conditions.commit}`],
    ['processor', `${conditions.cpu}, ${conditions.cores} cores, ${gib} GiB (${cpuFlags.join(' ')})`],
    ['kernel in use', `${conditions.kernel} (SEALBD_CPU ${conditions.sealbdCpu || 'not set'})`],
    ['system', `${conditions.system}, ${conditions.fileSystem}`],
    ['Node', `${conditions.node} with OpenSSL ${conditions.opensslOfNode}`],
    ['programs', programsOf(programs)],
    ['load average', `${load(loadAverageBefore)} before, ${load(loadAverageAfter)} after`],
  ];
  const busy = loadAverageBefore[0] > conditions.cores * BUSY_SHARE;
  const warning = [
    quick ? 'This was a `--quick` run: **its numbers mean nothing.**\n\n' : '',
    busy ? '**The machine was busy** before the run began: believe ranges, not medians.\n\n' : '',
  ].join('');
  const rows = lines.map(([what, value]) => `| ${what} | ${value} |`).join('\n');
  return `## Conditions\n\n${warning}| condition | value |\n| --- | --- |\n${rows}\n`;
}

/** Each by name: which one is missing matters. */
function programsOf(programs: Readonly<Record<string, string>>): string {
  const all = Object.entries(programs);
  const there = all.filter(([, version]) => version !== NOT_INSTALLED);
  const missing = all.filter(([, version]) => version === NOT_INSTALLED).map(([name]) => `**${name}**`);
  const versions = there.map(([name, version]) => `${name}: ${version}`).join('; ');
  return missing.length === 0 ? versions : `${versions}; not installed: ${missing.join(', ')}`;
}

/** `charts`: where each of them lies, as a reader of the text finds it. */
export function renderResult(result: BenchFile, charts: readonly ChartLink[]): string {
  const targets = `## Targets\n\nThe worst measurement decides; ratios are medians of the rounds.\n\n${renderTable(targetTable(result))}`;
  const images = charts.map(({ title, path }) => `![${title}](${path})\n`);
  const groups = Object.entries(result.groups).map(([name, group]) => renderGroup(name, group));
  return `${[renderConditions(result), targets, ...images, ...groups].join('\n')}`;
}

export interface ChartLink {
  readonly title: string;
  readonly path: string;
}

/** The whole of docs/BENCHMARKS.md. `source` is the JSON beside it. */
export function renderDocument(
  introduction: string,
  result: BenchFile,
  source: string,
  charts: readonly ChartLink[],
): string {
  const origin = `The tables are written by \`${result.command}\`; the raw figures are in [${source}](${source}).`;
  return `${introduction.trim()}\n\n${origin}\n\n${renderResult(result, charts)}`;
}
