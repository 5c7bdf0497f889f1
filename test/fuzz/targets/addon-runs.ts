/** What a call over a run of blocks may be asked for, and where it may write: said again, apart from the addon. */
import type { Arena } from '../../../src/native/arena.js';
import { requireThat } from './oracle.js';

export const BLOCK = 4096;
export const SLOT = 4128;
export const WORD = 2 ** 32;
const POSITIONS = 16_384;
const LBA_END = 2 ** 40;

interface Layout {
  /** Where among the arguments each is, and the bytes of one block there. */
  readonly dst: readonly [at: number, stride: number];
  readonly src?: readonly [at: number, stride: number];
  readonly blocks: number;
  readonly position: number;
  readonly lba?: number;
}

const LAYOUTS: Readonly<Record<string, Layout>> = {
  sealRun: { dst: [1, SLOT], src: [2, BLOCK], blocks: 3, position: 4, lba: 5 },
  openRun: { dst: [1, BLOCK], src: [2, SLOT], blocks: 3, position: 4, lba: 5 },
  scanRun: { dst: [1, BLOCK], src: [2, SLOT], blocks: 3, position: 4 },
  readRun: { dst: [4, BLOCK], blocks: 3, position: 5, lba: 6 },
};
/** readRuns: seven numbers for each, and the place of dst and blocks among them. */
const [FIELDS, DST_FIELD, BLOCKS_FIELD] = [7, 4, 3];

type Range = readonly [at: number, length: number];
type Numbers = (i: number) => number;

const numbersOf =
  (args: readonly unknown[]): Numbers =>
  (i) => {
    const value = args[i];
    return typeof value === 'number' ? value : Number.NaN;
  };

/** Of a call that was not refused. */
export function requireAllowed(name: string, args: readonly unknown[], arenas: readonly Arena[]): void {
  const layout = LAYOUTS[name];
  if (layout === undefined) return;
  const n = numbersOf(args);
  const [blocks, position] = [n(layout.blocks), n(layout.position)];
  requireThat(Number.isInteger(blocks) && blocks >= 1, `${name} takes whole blocks`);
  requireThat(
    Number.isInteger(position) && position >= 0 && position + blocks <= POSITIONS,
    `${name} stays in its segment`,
  );
  if (layout.lba !== undefined) {
    const lba = n(layout.lba);
    requireThat(Number.isInteger(lba) && lba >= 0 && lba + blocks <= LBA_END, `${name} takes block numbers`);
  }
  const dst: Range = [n(layout.dst[0]), blocks * layout.dst[1]];
  requireInside(name, dst, arenas);
  if (layout.src !== undefined) {
    const src: Range = [n(layout.src[0]), blocks * layout.src[1]];
    requireInside(name, src, arenas);
    requireThat(src[0] + src[1] <= dst[0] || dst[0] + dst[1] <= src[0], `${name} takes what lies apart`);
  }
  if (name === 'sealRun') requireSealable(n, blocks);
}

function requireSealable(n: Numbers, blocks: number): void {
  const [sequence, durable, kind] = [n(6), n(7), n(8)];
  const last = sequence + blocks - 1;
  requireThat(
    Number.isInteger(sequence) && sequence >= 0 && Number.isSafeInteger(last),
    'a sequence is exact',
  );
  requireThat(Number.isInteger(durable) && durable >= -1 && durable <= sequence, 'a claim is about the past');
  requireThat(kind === 1 || (kind === 2 && blocks === 1 && n(5) === 0), 'extents stand alone');
}

function requireInside(name: string, [at, length]: Range, arenas: readonly Arena[]): void {
  const within = arenas.some(({ id, sizeBytes }) => at >= id * WORD && at + length <= id * WORD + sizeBytes);
  requireThat(Number.isInteger(at) && within, `${name} takes bytes of one arena`);
}

/** Where a call may write: in these ranges of refs, and nowhere else in an arena. */
export function writes(name: string, args: readonly unknown[]): Range[] {
  const n = numbersOf(args);
  const layout = LAYOUTS[name];
  if (layout !== undefined) return [[n(layout.dst[0]), n(layout.blocks) * layout.dst[1]]];
  if (name === 'ioReceive') return [[n(1), n(2)]];
  const [runs] = args;
  if (name !== 'readRuns' || !(runs instanceof Float64Array)) return [];
  return Array.from({ length: Math.floor(runs.length / FIELDS) }, (_, i) => [
    runs[FIELDS * i + DST_FIELD],
    runs[FIELDS * i + BLOCKS_FIELD] * BLOCK,
  ]);
}
