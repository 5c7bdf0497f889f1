/** The workloads of the nbd group, in the order in which a round runs them. */

export interface Row {
  readonly name: string;
  /** fio's rw. */
  readonly rw: 'read' | 'write' | 'randread' | 'randwrite' | 'randrw';
  readonly blockBytes: number;
  readonly depth: number;
  readonly connections: number;
  readonly extra: readonly string[];
}

const KIB = 1024;
const base = { connections: 1, extra: [] };

export const ROWS: readonly Row[] = [
  { ...base, name: '1 MiB sequential write, QD8', rw: 'write', blockBytes: KIB * KIB, depth: 8 },
  { ...base, name: '1 MiB sequential read, QD8', rw: 'read', blockBytes: KIB * KIB, depth: 8 },
  { ...base, name: '4 KiB random read, QD1', rw: 'randread', blockBytes: 4 * KIB, depth: 1 },
  { ...base, name: '4 KiB random read, QD32', rw: 'randread', blockBytes: 4 * KIB, depth: 32 },
  {
    ...base,
    name: '4 KiB random read, 4 connections, QD8',
    rw: 'randread',
    blockBytes: 4 * KIB,
    depth: 8,
    connections: 4,
  },
  { ...base, name: '4 KiB random write, QD32', rw: 'randwrite', blockBytes: 4 * KIB, depth: 32 },
  {
    ...base,
    name: '4 KiB random write, 4 connections, QD8',
    rw: 'randwrite',
    blockBytes: 4 * KIB,
    depth: 8,
    connections: 4,
  },
  {
    ...base,
    name: '4 KiB random read 70 %, write 30 %, QD32',
    rw: 'randrw',
    blockBytes: 4 * KIB,
    depth: 32,
    extra: ['--rwmixread=70'],
  },
  {
    ...base,
    name: '4 KiB random write, flush every 32, QD32',
    rw: 'randwrite',
    blockBytes: 4 * KIB,
    depth: 32,
    extra: ['--fsync=32'],
  },
  // A log-structured volume pays here for the random writes above.
  {
    ...base,
    name: '1 MiB sequential read after random writes, QD8',
    rw: 'read',
    blockBytes: KIB * KIB,
    depth: 8,
  },
];

/** One of each kind, for a smoke test. */
export const QUICK_ROWS: readonly Row[] = ROWS.filter(({ rw, depth, connections, extra }) => {
  return connections === 1 && depth > 1 && extra.length === 0 && rw.startsWith('rand');
});
