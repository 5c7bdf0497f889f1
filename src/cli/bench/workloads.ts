/** The workloads over NBD, in the order in which a round runs them. */

export interface Workload {
  readonly name: string;
  /** fio's rw. */
  readonly rw: 'read' | 'write' | 'randread' | 'randwrite' | 'randrw';
  readonly blockBytes: number;
  /** Requests under way on each connection. */
  readonly depth: number;
  readonly connections: number;
  /** Further arguments of fio. */
  readonly extra: readonly string[];
}

const KIB = 1024;
const base = { connections: 1, extra: [] };
const four = { blockBytes: 4 * KIB, connections: 4, depth: 8, extra: [] };
const large = { ...base, blockBytes: KIB * KIB, depth: 8 };
const small = { ...base, blockBytes: 4 * KIB, depth: 32 };

export const WORKLOADS: readonly Workload[] = [
  { ...large, name: '1 MiB sequential write, QD8', rw: 'write' },
  { ...large, name: '1 MiB sequential read, QD8', rw: 'read' },
  { ...small, name: '4 KiB random read, QD1', rw: 'randread', depth: 1 },
  { ...small, name: '4 KiB random read, QD32', rw: 'randread' },
  { ...four, name: '4 KiB random read, 4 connections, QD8', rw: 'randread' },
  { ...small, name: '4 KiB random write, QD32', rw: 'randwrite' },
  { ...four, name: '4 KiB random write, 4 connections, QD8', rw: 'randwrite' },
  { ...small, name: '4 KiB random read 70 %, write 30 %, QD32', rw: 'randrw', extra: ['--rwmixread=70'] },
  { ...small, name: '4 KiB random write, flush every 32, QD32', rw: 'randwrite', extra: ['--fsync=32'] },
  // A log-structured volume pays here for the random writes above.
  { ...large, name: '1 MiB sequential read after random writes, QD8', rw: 'read' },
];

export function isReadOnly({ rw }: Workload): boolean {
  return rw === 'read' || rw === 'randread';
}

export function workloadNamed(name: string): Workload {
  const found = WORKLOADS.find((workload) => workload.name === name);
  if (found === undefined) throw new Error(`there is no workload '${name}'`);
  return found;
}
