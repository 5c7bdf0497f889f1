/** docs/BENCHMARKS.md, and the figures that it is made of: docs/benchmarks/<group>.json. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chartsOf } from './charts.js';
import { writeReported } from './files.js';
import { renderDocument } from './report.js';
import type { BenchFile } from './result.js';

/** The groups of `result` take the place of what was published of them; the others stay. */
export function publish(root: string, result: BenchFile): void {
  const docs = join(root, 'docs');
  for (const [name, group] of Object.entries(result.groups)) {
    const file: BenchFile = { ...result, groups: { [name]: group } };
    writeReported(join(docs, 'benchmarks', `${name}.json`), `${JSON.stringify(file, null, 1)}\n`);
  }
  const names = readdirSync(join(docs, 'benchmarks'))
    .filter((name) => name.endsWith('.json'))
    .sort();
  const runs = joined(
    names.map((name) => JSON.parse(readFileSync(join(docs, 'benchmarks', name), 'utf8')) as BenchFile),
  );
  const charts = runs.flatMap(chartsOf);
  const links = charts.map(({ title, name }) => ({ title, path: `benchmarks/${name}.svg` }));
  for (const [i, { svg }] of charts.entries()) writeReported(join(docs, links[i].path), svg);
  const introduction = readFileSync(join(root, 'bench/introduction.md'), 'utf8');
  const sources = names.map((name) => `benchmarks/${name}`);
  writeReported(join(docs, 'BENCHMARKS.md'), renderDocument(introduction, runs, sources, links));
}

/** Groups of one run share its conditions. Oldest first. */
function joined(files: readonly BenchFile[]): BenchFile[] {
  const runs = new Map<string, BenchFile>();
  for (const file of files) {
    const { date } = file.conditions;
    runs.set(date, { ...file, groups: { ...runs.get(date)?.groups, ...file.groups } });
  }
  return [...runs.values()].sort((a, b) => a.conditions.date.localeCompare(b.conditions.date));
}
