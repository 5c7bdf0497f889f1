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
  fairness: 'A small client beside a greedy one',
  profile: 'Where processor time goes',
  backup: 'Backup and restore',
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

const load = (values: readonly number[]): string => values.map((value) => value.toFixed(2)).join(' ');

const CONDITIONS: readonly (readonly [string, (run: BenchFile) => string])[] = [
  ['command', ({ command }) => `\`${command}\``],
  ['date', ({ conditions }) => conditions.date],
  ['sealbd', ({ conditions }) => `${conditions.sealbd}, commit ${conditions.commit}`],
  [
    'processor',
    ({ conditions: { cpu, cores, memoryBytes, cpuFlags } }) =>
      `${cpu}, ${cores} cores, ${(memoryBytes / 2 ** 30).toFixed(0)} GiB (${cpuFlags.join(' ')})`,
  ],
  [
    'kernel in use',
    ({ conditions }) => `${conditions.kernel} (SEALBD_CPU ${conditions.sealbdCpu || 'not set'})`,
  ],
  ['system', ({ conditions }) => `${conditions.system}, ${conditions.fileSystem}`],
  ['Node', ({ conditions }) => `${conditions.node} with OpenSSL ${conditions.opensslOfNode}`],
  ['programs', ({ conditions }) => programsOf(conditions.programs)],
  [
    'load average',
    ({ conditions, loadAverageAfter }) =>
      `${load(conditions.loadAverageBefore)} before, ${load(loadAverageAfter)} after`,
  ],
];

/** A column for each run. */
function renderConditions(runs: readonly BenchFile[]): string {
  const busy = runs.some(({ conditions }) => conditions.loadAverageBefore[0] > conditions.cores * BUSY_SHARE);
  const warning = [
    runs.some(({ quick }) => quick) ? 'This was a `--quick` run: **its numbers mean nothing.**\n\n' : '',
    busy ? '**The machine was busy** before the run began: believe ranges, not medians.\n\n' : '',
  ].join('');
  const heads = runs.map(({ groups }) => Object.keys(groups).join(', '));
  const rows = [
    ['condition', ...heads],
    ['---', ...heads.map(() => '---')],
  ].concat(CONDITIONS.map(([what, of]) => [what, ...runs.map(of)]));
  return `## Conditions\n\n${warning}${rows.map((cells) => `| ${cells.join(' | ')} |`).join('\n')}\n`;
}

/** Each by name: which one is missing matters. */
function programsOf(programs: Readonly<Record<string, string>>): string {
  const all = Object.entries(programs);
  const there = all.filter(([, version]) => version !== NOT_INSTALLED);
  const missing = all.filter(([, version]) => version === NOT_INSTALLED).map(([name]) => `**${name}**`);
  const versions = there.map(([name, version]) => `${name}: ${version}`).join('; ');
  return missing.length === 0 ? versions : `${versions}; not installed: ${missing.join(', ')}`;
}

export interface ChartLink {
  readonly title: string;
  readonly path: string;
}

/** `charts`: where each of them lies, as a reader of the text finds it. Each group is in one run alone. */
export function renderResult(runs: readonly BenchFile[], charts: readonly ChartLink[]): string {
  const all = Object.assign({}, ...runs.map(({ groups }) => groups)) as BenchFile['groups'];
  const targets = `## Targets\n\nThe worst measurement decides; ratios are medians of the rounds.\n\n${renderTable(targetTable(all))}`;
  const images = charts.map(({ title, path }) => `![${title}](${path})\n`);
  const groups = Object.keys(TITLES).flatMap((name) => (name in all ? [renderGroup(name, all[name])] : []));
  return `${[renderConditions(runs), targets, ...images, ...groups].join('\n')}`;
}

/** The whole of docs/BENCHMARKS.md. `sources` are the JSON files beside it. */
export function renderDocument(
  introduction: string,
  runs: readonly BenchFile[],
  sources: readonly string[],
  charts: readonly ChartLink[],
): string {
  const links = sources.map((source) => `[${source}](${source})`).join(', ');
  const origin = `The tables are written by \`npm run bench -- --publish\`, with \`--group NAME\` for some of them alone; the raw figures are in ${links}. Every comparison is made within one run.`;
  return `${introduction.trim()}\n\n${origin}\n\n${renderResult(runs, charts)}`;
}
