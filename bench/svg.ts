/** A horizontal bar chart as SVG: no script, no font but the reader's, readable on a light and on a dark page. */

export interface Bar {
  readonly value: number;
  /** Ends of the whisker: the range of the rounds. */
  readonly low: number;
  readonly high: number;
}

export interface Chart {
  readonly title: string;
  /** Of the axis, with its unit. */
  readonly axis: string;
  /** Names of the bars in each group, in order; they also choose the colours. */
  readonly series: readonly string[];
  readonly groups: readonly { readonly label: string; readonly bars: readonly (Bar | undefined)[] }[];
  /** A range of the axis to compare with, shaded. */
  readonly band?: { readonly from: number; readonly to: number; readonly label: string };
}

const WIDTH = 900;
const LABEL_WIDTH = 320;
const RIGHT = 70;
const BAR = 11;
const GROUP_GAP = 12;
const TOP = 50;
const LEGEND_LINE = 18;
const LEGEND_COLUMN = 190;
const TICKS_WANTED = 6;
/** Distinct in lightness too, for those who do not see the hues, and between black and white. */
const COLOURS = ['#0969da', '#54aeff', '#8c959f', '#bf8700', '#d4a72c', '#a475f9', '#cf222e'];

const STYLE = `
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.value { font-size: 9px }
.title { font-size: 15px; font-weight: 600 }
.page { fill: #ffffff }
.grid { stroke: #d1d9e0 }
.zero, .whisker { stroke: #1f2328 }
.band { fill: #bf8700; opacity: 0.18 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .page { fill: #0d1117 }
  .grid { stroke: #3d444d }
  .zero, .whisker { stroke: #f0f6fc }
}`;

const ENTITIES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const escapeXml = (text: string): string => text.replace(/[&<>"]/g, (character) => ENTITIES[character]);

/** Round numbers from at most `low` to at least `high`. */
export function ticks(low: number, high: number): number[] {
  const raw = (high - low || 1) / TICKS_WANTED;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((each) => each * power >= raw) ?? 10);
  const result: number[] = [];
  const first = Math.floor(low / step);
  for (let i = first; i < first + 2 * TICKS_WANTED + 2; i++) {
    result.push(Number((i * step).toPrecision(12)));
    if (i * step >= high) break;
  }
  return result;
}

export function renderChart(chart: Chart): string {
  const { series, groups, band } = chart;
  const all = groups.flatMap(({ bars }) => bars.filter((bar) => bar !== undefined));
  const ends = [0, ...all.flatMap(({ low, high }) => [low, high]), ...(band ? [band.from, band.to] : [])];
  for (const end of ends) if (!Number.isFinite(end)) throw new Error(`${chart.title}: ${end} can't be drawn`);
  const marks = ticks(Math.min(...ends), Math.max(...ends));
  const [from, to] = [marks[0], marks[marks.length - 1]];
  const x = (value: number): string => {
    return (LABEL_WIDTH + ((value - from) / (to - from)) * (WIDTH - LABEL_WIDTH - RIGHT)).toFixed(1);
  };
  const groupHeight = series.length * BAR + GROUP_GAP;
  const bottom = TOP + groups.length * groupHeight;
  const legend = renderLegend(chart, bottom + 50);
  const height = bottom + 50 + legend.height;
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<title>${escapeXml(chart.title)}</title><style>${STYLE}</style>`,
    `<rect class="page" width="${WIDTH}" height="${height}"/>`,
    `<text class="title" x="16" y="26">${escapeXml(chart.title)}</text>`,
  ];
  if (band !== undefined) {
    const width = Number(x(band.to)) - Number(x(band.from));
    parts.push(
      `<rect class="band" x="${x(band.from)}" y="${TOP - 6}" width="${width.toFixed(1)}" height="${bottom - TOP + 6}"/>`,
    );
  }
  for (const mark of marks) {
    const kind = mark === 0 ? 'zero' : 'grid';
    parts.push(`<line class="${kind}" x1="${x(mark)}" x2="${x(mark)}" y1="${TOP - 6}" y2="${bottom}"/>`);
    parts.push(`<text x="${x(mark)}" y="${bottom + 16}" text-anchor="middle">${mark}</text>`);
  }
  const middle = (Number(x(from)) + Number(x(to))) / 2;
  parts.push(`<text x="${middle}" y="${bottom + 34}" text-anchor="middle">${escapeXml(chart.axis)}</text>`);
  for (const [g, { label, bars }] of groups.entries()) {
    const y = TOP + g * groupHeight;
    const labelY = y + (series.length * BAR) / 2 + 4;
    parts.push(`<text x="${LABEL_WIDTH - 10}" y="${labelY}" text-anchor="end">${escapeXml(label)}</text>`);
    for (const [i, bar] of bars.entries()) {
      if (bar !== undefined) parts.push(renderBar(bar, i, y + i * BAR, x));
    }
  }
  return `${[...parts, ...legend.parts, '</svg>'].join('\n')}\n`;
}

function renderBar(bar: Bar, index: number, y: number, x: (value: number) => string): string {
  const [left, right] = [Math.min(0, bar.value), Math.max(0, bar.value)];
  const width = Math.max(0.5, Number(x(right)) - Number(x(left))).toFixed(1);
  const middle = y + BAR / 2 - 0.5;
  const fill = COLOURS[index % COLOURS.length];
  // Behind the whisker, on the side to which the bar points.
  const negative = bar.value < 0;
  const end = Number(x(negative ? Math.min(bar.low, left) : Math.max(bar.high, right)));
  const anchor = negative ? 'text-anchor="end"' : '';
  const shown = bar.value.toFixed(Math.abs(bar.value) < 100 ? 1 : 0);
  return [
    `<rect x="${x(left)}" y="${y}" width="${width}" height="${BAR - 2}" fill="${fill}"/>`,
    `<line class="whisker" x1="${x(bar.low)}" x2="${x(bar.high)}" y1="${middle}" y2="${middle}"/>`,
    `<text class="value" x="${(end + (negative ? -4 : 4)).toFixed(1)}" y="${y + BAR - 3}" ${anchor}>${shown}</text>`,
  ].join('');
}

function renderLegend({ series, band }: Chart, top: number): { parts: string[]; height: number } {
  const columns = Math.floor((WIDTH - 32) / LEGEND_COLUMN);
  const entries = series.map((label, i) => ({ label, fill: `fill="${COLOURS[i % COLOURS.length]}"` }));
  const shaded = band === undefined ? [] : [{ label: band.label, fill: 'class="band"' }];
  // The band's label is long, so it has a line of its own.
  const lines = Math.ceil(entries.length / columns);
  const parts = [...entries, ...shaded].map(({ label, fill }, i) => {
    const line = i < entries.length ? Math.floor(i / columns) : lines;
    const left = i < entries.length ? 16 + (i % columns) * LEGEND_COLUMN : 16;
    const y = top + line * LEGEND_LINE;
    return `<rect x="${left}" y="${y}" width="11" height="11" ${fill}/><text x="${left + 17}" y="${y + 10}">${escapeXml(label)}</text>`;
  });
  return { parts, height: (lines + shaded.length) * LEGEND_LINE + 14 };
}
