/**
 * How a cost grows: cost ~ x^exponent, fitted as a line through the logarithms. 0 is constant, 1 linear. A step whose
 * own exponent is clearly above 1 is worse than linear, and is marked.
 */
import type { Cell, Column, Table } from '../result.js';

/** Above this a step counts as worse than linear: 1, and what chance does to a measurement. */
export const LINEAR_MAX = 1.15;

export interface Point {
  readonly x: number;
  /** What is paid at x. Positive; less is better. */
  readonly cost: number;
  /** What the table shows beside it. */
  readonly cells: Readonly<Record<string, Cell>>;
}

export interface Curve {
  readonly title: string;
  /** What grows, with its unit. */
  readonly xLabel: string;
  /** What `cost` is. */
  readonly costLabel: string;
  readonly columns: readonly Column[];
  /** By growing x. */
  readonly points: readonly Point[];
}

/** The slope of the least-squares line through (log x, log cost). */
export function exponentOf(points: readonly Pick<Point, 'x' | 'cost'>[]): number {
  if (points.length < 2) throw new Error('a curve needs two points');
  const xs = points.map(({ x }) => Math.log(x));
  const ys = points.map(({ cost }) => Math.log(cost));
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const [xMean, yMean] = [mean(xs), mean(ys)];
  let covariance = 0;
  let variance = 0;
  for (const [i, x] of xs.entries()) {
    covariance += (x - xMean) * (ys[i] - yMean);
    variance += (x - xMean) ** 2;
  }
  const exponent = covariance / variance;
  if (!Number.isFinite(exponent)) throw new Error('a curve needs different, positive points');
  return exponent;
}

/** Exponents of the steps that lead to each point; none for the first. */
export function stepExponents(points: readonly Pick<Point, 'x' | 'cost'>[]): (number | undefined)[] {
  return points.map((point, i) => (i === 0 ? undefined : exponentOf([points[i - 1], point])));
}

const MARK = '**worse than linear**';

export function curveTable(curve: Curve): Table {
  const steps = stepExponents(curve.points);
  return {
    title: curve.title,
    columns: [
      { key: 'x', label: curve.xLabel },
      ...curve.columns,
      { key: 'exponent', label: 'exponent of this step', digits: 2 },
      { key: 'mark', label: '' },
    ],
    rows: curve.points.map(({ x, cells }, i) => {
      const exponent = steps[i];
      const mark = exponent !== undefined && exponent > LINEAR_MAX ? MARK : '';
      return { x, ...cells, exponent: exponent ?? '', mark };
    }),
  };
}

/** One line for each curve. */
export function summaryTable(curves: readonly Curve[]): Table {
  return {
    title: 'How costs grow',
    columns: [
      { key: 'curve', label: 'curve' },
      { key: 'grows', label: 'what grows' },
      { key: 'cost', label: 'cost' },
      { key: 'exponent', label: 'exponent', digits: 2 },
      { key: 'worst', label: 'worst step', digits: 2 },
      { key: 'mark', label: '' },
    ],
    rows: curves.map(({ title, xLabel, costLabel, points }) => {
      const worst = Math.max(
        ...stepExponents(points).map((exponent) => exponent ?? Number.NEGATIVE_INFINITY),
      );
      const exponent = exponentOf(points);
      const mark = exponent > LINEAR_MAX ? MARK : worst > LINEAR_MAX ? 'worse than linear in places' : '';
      return { curve: title, grows: xLabel, cost: costLabel, exponent, worst, mark };
    }),
  };
}

/** The line through the points themselves: what is fixed, and what each unit of x adds. */
export function lineOf(points: readonly { readonly x: number; readonly y: number }[]): {
  readonly fixed: number;
  readonly slope: number;
} {
  if (points.length < 2) throw new Error('a line needs two points');
  const n = points.length;
  const xMean = points.reduce((sum, { x }) => sum + x, 0) / n;
  const yMean = points.reduce((sum, { y }) => sum + y, 0) / n;
  const covariance = points.reduce((sum, { x, y }) => sum + (x - xMean) * (y - yMean), 0);
  const variance = points.reduce((sum, { x }) => sum + (x - xMean) ** 2, 0);
  const slope = covariance / variance;
  return { fixed: yMean - slope * xMean, slope };
}
