/** What the reports of benchmarks are computed with. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Curve,
  curveTable,
  exponentOf,
  lineOf,
  stepExponents,
  summaryTable,
} from '../../bench/growth/curve.js';
import { median, quantile, rangeOf } from '../../src/cli/bench/statistics.js';
import { orderOf, ratios, type Trial } from '../../src/cli/bench/trials.js';

const trial = (subject: string, round: number, iops: number): Trial => ({
  ...{ workload: 'w', subject, round, iops },
  ...{ mibPerS: iops, p50us: 1, p99us: 1 },
});

describe('statistics', () => {
  it('take the middle, the rank and the range', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(quantile([5, 1, 4, 2, 3], 0.8)).toBe(4);
    expect(rangeOf([0.5, 2, 1], 2)).toBe('0.50–2.00');
  });

  it('refuse to say something about nothing', () => {
    expect(() => median([])).toThrow();
    expect(() => quantile([], 0.5)).toThrow();
    expect(() => rangeOf([], 1)).toThrow();
  });
});

describe('rounds', () => {
  it('run every subject once, and let each go first', () => {
    const subjects = ['a', 'b', 'c', 'd'];
    const orders = Array.from({ length: 2 * subjects.length }, (_, round) => orderOf(subjects, round));
    for (const order of orders) expect([...order].sort()).toEqual(subjects);
    expect(new Set(orders.map(([first]) => first)).size).toBeGreaterThan(1);
    expect(new Set(orders.map((order) => order.join())).size).toBeGreaterThan(2);
    expect(subjects).toEqual(['a', 'b', 'c', 'd']);
  });

  it('are compared within themselves, in whatever order trials ran', () => {
    const trials = [trial('x', 1, 10), trial('y', 1, 20), trial('y', 2, 5), trial('x', 2, 10)];
    expect(ratios(trials, 'w', 'x', 'y')).toEqual([0.5, 2]);
  });

  it('are not compared where a trial is missing', () => {
    expect(() => ratios([trial('x', 1, 10), trial('y', 2, 20)], 'w', 'x', 'y')).toThrow('round 1');
  });
});

describe('fitted growth', () => {
  const points = (cost: (x: number) => number) => [1, 2, 4, 8].map((x) => ({ x, cost: cost(x), cells: {} }));

  it('finds the exponent of any power, whatever the factor', () => {
    fc.assert(
      fc.property(
        fc.double({ min: -2, max: 3, noNaN: true }),
        fc.double({ min: 0.1, max: 1e6, noNaN: true }),
        (e, a) => {
          expect(exponentOf(points((x) => a * x ** e))).toBeCloseTo(e, 6);
        },
      ),
    );
  });

  it('refuses what has no exponent', () => {
    expect(() => exponentOf([{ x: 1, cost: 1 }])).toThrow();
    expect(() => exponentOf([1, 1].map((x) => ({ x, cost: 1 })))).toThrow();
    expect(() => exponentOf([1, 2].map((x) => ({ x, cost: 0 })))).toThrow();
  });

  it('marks the step that is worse than linear, and no other', () => {
    const cost = (x: number): number => (x < 8 ? x : 100);
    const curve: Curve = { title: 't', xLabel: 'x', costLabel: 'c', columns: [], points: points(cost) };
    const marks = curveTable(curve).rows.map(({ mark }) => mark);
    expect(marks).toEqual(['', '', '', '**worse than linear**']);
    expect(stepExponents(curve.points).slice(0, 3)).toEqual([undefined, 1, 1]);
  });

  it('tells a curve that is worse than linear from one that is so in places', () => {
    const curve = (cost: (x: number) => number): Curve => {
      return { title: 't', xLabel: 'x', costLabel: 'c', columns: [], points: points(cost) };
    };
    const marks = summaryTable([
      curve((x) => x),
      curve((x) => x ** 2),
      curve((x) => (x < 8 ? 1 : 3)),
    ]).rows.map(({ mark }) => mark);
    expect(marks).toEqual(['', '**worse than linear**', 'worse than linear in places']);
  });

  it('separates what is fixed from what each unit adds', () => {
    const { fixed, slope } = lineOf([0, 10, 30].map((x) => ({ x, y: 7 + 3 * x })));
    expect(fixed).toBeCloseTo(7);
    expect(slope).toBeCloseTo(3);
  });
});
