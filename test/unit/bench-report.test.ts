/** The report of a run: targets that were kept, missed or not measured; charts; missing programs by name. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it, vi } from 'vitest';
import { chartsOf, TRIALS_TITLE } from '../../bench/charts.js';
import { publish } from '../../bench/publish.js';
import { renderDocument, renderResult } from '../../bench/report.js';
import { type BenchFile, NOT_INSTALLED, type Table } from '../../bench/result.js';
import { renderChart, ticks } from '../../bench/svg.js';
import { targetTable } from '../../bench/targets.js';
import { type BenchReport, printReport, summaryOf } from '../../src/cli/bench/report.js';
import { temporaryDirectory } from '../support/key-fixtures.js';

const table = (title: string, rows: Table['rows']): Table => ({ title, columns: [], rows });

function fileWith(groups: Readonly<Record<string, readonly Table[]>>): BenchFile {
  const entries = Object.entries(groups).map(([name, tables]) => [name, { notes: [], tables, seconds: 1 }]);
  return {
    format: 1,
    command: 'npm run bench -- --rounds 7',
    quick: false,
    conditions: {
      date: '2026-01-02T03:04:05.678Z',
      sealbd: '0.1.0',
      commit: 'abc',
      cpu: 'A processor',
      cpuFlags: ['aes'],
      cores: 2,
      memoryBytes: 2 ** 34,
      system: 'Linux',
      fileSystem: 'ext4',
      node: 'v24.0.0',
      opensslOfNode: '3.5.0',
      kernel: 'vaes512',
      sealbdCpu: '',
      programs: { fio: 'fio-3.33', nbdkit: NOT_INSTALLED, 'qemu-nbd': NOT_INSTALLED },
      loadAverageBefore: [0, 0, 0],
    },
    loadAverageAfter: [0, 0, 0],
    groups: Object.fromEntries(entries) as BenchFile['groups'],
  };
}

const verdicts = (file: BenchFile, name: string) =>
  targetTable(file.groups).rows.filter(({ target }) => String(target).includes(name));

describe('targets', () => {
  it('are decided by the worst measurement, where everything else is good', () => {
    const rows = [
      { workload: 'a', gcmNone: 1.02, ctrNone: 0.98 },
      { workload: 'b', gcmNone: 0.96, ctrNone: 1.2 },
    ];
    const file = fileWith({ nbd: [table('What encryption costs over NBD', rows)] });
    expect(verdicts(file, 'aes-256-gcm by none')).toMatchObject([
      { worst: '0.960', where: 'b', kept: '1 of 2', verdict: '**not reached**' },
    ]);
    expect(verdicts(file, 'aes-256-ctr by none')).toMatchObject([{ kept: '2 of 2', verdict: 'reached' }]);
  });

  it('that are upper bounds are missed by more, and kept at the bound', () => {
    const memory = (fixed: number): BenchFile => {
      const rows = [{ what: 'fixed part, MiB', value: fixed }];
      return fileWith({ growth: [table('Resident memory', rows)] });
    };
    expect(verdicts(memory(150), 'fixed part')).toMatchObject([{ verdict: 'reached' }]);
    expect(verdicts(memory(150.5), 'fixed part')).toMatchObject([{ verdict: '**not reached**' }]);
  });

  it('take the kernel, the operation and the sizes that they name', () => {
    const row = (who: string, what: string, kib: number, timesEvp: number) => ({ who, what, kib, timesEvp });
    const rows = [
      row('vaes512', 'ctr', 4, 3.5),
      row('vaes512', 'ctr', 1024, 3.1),
      row('vaes512', 'ctr', 0.5, 0.1),
      row('vaes512', 'ctr', 65_536, 0.1),
      row('vaes256', 'ctr', 4, 0.1),
    ];
    const file = fileWith({ kernels: [table('AES-256 kernels', rows)] });
    expect(verdicts(file, 'CTR with VAES-512, 4 KiB to 1 MiB, by EVP in')).toMatchObject([
      { worst: '3.10', where: 'ctr, 1024 KiB', kept: '2 of 2', verdict: 'reached' },
    ]);
  });

  it('without a measurement say so', () => {
    const { rows } = targetTable({});
    expect(rows.length).toBeGreaterThan(12);
    for (const { verdict } of rows) expect(verdict).toBe('not measured');
  });
});

describe('the report', () => {
  it('names what is missing, and the command that made it', () => {
    const text = renderResult([fileWith({})], []);
    expect(text).toContain('not installed: **nbdkit**, **qemu-nbd**');
    expect(text).toContain('`npm run bench -- --rounds 7`');
  });

  it('shows targets before figures, and the charts where they lie', () => {
    const file = fileWith({ nbd: [table('What encryption costs over NBD', [])] });
    const text = renderDocument(
      '# Benchmarks',
      [file],
      ['x.json'],
      [{ title: 'A chart', path: 'benchmarks/a.svg' }],
    );
    expect(text).toContain('![A chart](benchmarks/a.svg)');
    expect(text.indexOf('## Targets')).toBeGreaterThan(text.indexOf('# Benchmarks'));
    expect(text.indexOf('## Over NBD')).toBeGreaterThan(text.indexOf('## Targets'));
  });
});

describe('publishing', () => {
  it('replaces the groups of the run, and keeps the others with their own conditions', () => {
    const root = temporaryDirectory();
    mkdirSync(join(root, 'bench'));
    writeFileSync(join(root, 'bench/introduction.md'), '# Benchmarks\n');
    const dated = (date: string, groups: Parameters<typeof fileWith>[0]): BenchFile => {
      const file = fileWith(groups);
      return { ...file, conditions: { ...file.conditions, date } };
    };
    const columns = [{ key: 'a', label: 'a' }];
    const of = (a: string): Table[] => [{ title: 'T', columns, rows: [{ a }] }];
    publish(root, dated('2026-01-01', { kdf: of('kdf of then'), codec: of('codec of then') }));
    publish(root, dated('2026-01-02', { kdf: of('kdf of now') }));
    const text = readFileSync(join(root, 'docs/BENCHMARKS.md'), 'utf8');
    for (const part of [
      'kdf of now',
      'codec of then',
      '| condition | codec | kdf |',
      '| date | 2026-01-01 | 2026-01-02 |',
    ])
      expect(text).toContain(part);
    expect(text).not.toContain('kdf of then');
    expect(text).toContain('[benchmarks/kdf.json](benchmarks/kdf.json)');
  });
});

describe('what `sealbd bench` prints', () => {
  const of = (subject: string, rates: readonly number[]) =>
    rates.map((iops, i) => ({
      ...{ workload: 'a workload', subject, round: i + 1, iops, mibPerS: iops / 256 },
      ...{ p50us: 10, p99us: 20 },
    }));
  const subjects = [
    { volume: 'x', cipher: 'aes-256-gcm' },
    { volume: 'y', cipher: 'none' },
  ];
  const trials = [...of('x', [900, 2000, 500]), ...of('y', [1000, 2000, 1000])];
  const conditions = {
    ...{ version: '1', date: 'd', quick: false, rounds: 3, seconds: 2, cpu: 'A processor', cores: 2 },
    ...{ sizeBytes: 2 ** 29, subjects, notes: [] },
  };

  function printed(report: BenchReport): string {
    const written = vi.spyOn(process.stdout, 'write').mockReturnValue(true);
    try {
      printReport(report);
      return written.mock.calls.map(([text]) => String(text)).join('');
    } finally {
      written.mockRestore();
    }
  }

  it('compares within rounds, and takes the middle', () => {
    expect(summaryOf(trials, subjects)).toMatchObject({
      ratios: [{ workload: 'a workload', median: 0.9, min: 0.5, max: 1 }],
      figures: [
        { cipher: 'aes-256-gcm', iops: 900 },
        { cipher: 'none', iops: 1000 },
      ],
    });
  });

  it('has ratios before figures, with the range and the cost', () => {
    const text = printed({ ...conditions, loadAverage: [0, 0, 0], ...summaryOf(trials, subjects) });
    expect(text).toMatch(/a workload +0\.90 +0\.50–1\.00 +10\.0 %/);
    expect(text.indexOf('requests/s')).toBeGreaterThan(text.indexOf('ratio'));
    expect(text).not.toContain('busy');
    expect(text).not.toContain('--quick');
  });

  it('says when the machine was busy, and when the run was a quick one', () => {
    const report = { ...conditions, quick: true, loadAverage: [1.5, 0, 0], ...summaryOf(trials, subjects) };
    const text = printed(report);
    expect(text).toContain('the machine is busy');
    expect(text).toContain('its numbers mean nothing');
  });

  it('has no ratio for a single volume', () => {
    const one = subjects.slice(0, 1);
    expect(summaryOf(trials, one).ratios).toEqual([]);
    const report = { ...conditions, subjects: one, loadAverage: [0, 0, 0], ...summaryOf(trials, one) };
    expect(printed(report)).not.toContain('ratio');
  });
});

describe('charts', () => {
  const trials = ['sealbd aes-256-gcm', 'sealbd aes-256-ctr', 'sealbd none', 'a <peer>'].flatMap(
    (subject, i) =>
      ['1 MiB sequential write, QD8', '4 KiB random read, QD32'].flatMap((workload) =>
        [1, 2].map((round) => {
          const rate = 100 - 5 * i;
          return { workload, subject, round, iops: rate, mibPerS: rate, p50us: 1, p99us: 1 };
        }),
      ),
  );
  const file = fileWith({ nbd: [{ ...table(TRIALS_TITLE, trials), raw: true }] });

  it('are drawn of trials over NBD, and of nothing else', () => {
    expect(chartsOf(fileWith({})).length).toBe(0);
    expect(chartsOf(file).map(({ name }) => name)).toEqual(['penalty', 'throughput', 'iops']);
  });

  it('show what encryption costs beside what it costs the reference', () => {
    const [{ svg }] = chartsOf(file);
    expect(svg).toContain('class="band"');
    expect(svg).toContain('what the reference system loses: 5 to 15 %');
    expect(svg).toContain('prefers-color-scheme: dark');
  });

  it('escape names, and hold nothing but numbers where numbers belong', () => {
    const svg = chartsOf(file)[1].svg;
    expect(svg).toContain('a &lt;peer&gt;');
    expect(svg).not.toContain('a <peer>');
    for (const { svg: each } of chartsOf(file)) {
      expect(each).not.toMatch(/NaN|Infinity|undefined/);
      // Every element is closed.
      const opened = each.match(/<(svg|title|style|text)\b/g)!.length;
      expect(each.match(/<\/(svg|title|style|text)>/g)).toHaveLength(opened);
    }
  });

  it('place a bar in proportion to its value', () => {
    const bars = [10, 20].map((value) => ({ value, low: value, high: value }));
    const svg = renderChart({
      title: 't',
      axis: 'a',
      series: ['s'],
      groups: bars.map((bar, i) => ({ label: `${i}`, bars: [bar] })),
    });
    const widths = [...svg.matchAll(/width="([\d.]+)" height="9"/g)].map(([, width]) => Number(width));
    expect(widths).toHaveLength(2);
    expect(widths[1] / widths[0]).toBeCloseTo(2, 1);
  });

  it('refuse what can not be drawn', () => {
    const bar = { value: Number.NaN, low: Number.NaN, high: Number.NaN };
    expect(() =>
      renderChart({ title: 't', axis: 'a', series: ['s'], groups: [{ label: 'g', bars: [bar] }] }),
    ).toThrow();
  });

  it('have round ticks that enclose the values', () => {
    expect(ticks(0, 100)).toEqual([0, 20, 40, 60, 80, 100]);
    expect(ticks(-3.2, 15)).toEqual([-5, 0, 5, 10, 15]);
    expect(ticks(0, 0)).toContain(0);
  });
});
