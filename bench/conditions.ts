/** The conditions of a run: whatever a reader needs to doubt the numbers. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, loadavg, release, totalmem } from 'node:os';
import { addon } from '../src/native/addon.js';
import { type Conditions, NOT_INSTALLED } from './result.js';

/** Flags that select kernels or change what they cost. */
const FLAGS = [
  'aes',
  'pclmulqdq',
  'avx2',
  'vaes',
  'vpclmulqdq',
  'avx512f',
  'avx512vl',
  'avx512bw',
  'hypervisor',
];
const PROGRAMS: Readonly<Record<string, readonly string[]>> = {
  fio: ['--version'],
  nbdkit: ['--version'],
  'qemu-nbd': ['--version'],
  openssl: ['version'],
  perf: ['--version'],
  strace: ['--version'],
};

export function gatherConditions(root: string, directory: string): Conditions {
  const manifest = JSON.parse(readFileSync(`${root}/package.json`, 'utf8')) as { version: string };
  const programs: Record<string, string> = {};
  for (const [name, args] of Object.entries(PROGRAMS)) {
    programs[name] = firstLine(name, args) ?? NOT_INSTALLED;
  }
  return {
    date: new Date().toISOString(),
    sealbd: manifest.version,
    commit: commitOf(root),
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cpuFlags: cpuFlags(),
    cores: cpus().length,
    memoryBytes: totalmem(),
    system: `Linux ${release()} ${process.arch}`,
    fileSystem: firstLine('findmnt', ['-no', 'FSTYPE', '-T', directory]) ?? 'unknown',
    node: process.version,
    opensslOfNode: process.versions.openssl ?? 'none',
    kernel: addon.cpuSelected(),
    sealbdCpu: process.env.SEALBD_CPU ?? '',
    programs,
    loadAverageBefore: loadavg(),
  };
}

/** The first line of a program's output; undefined where it is not there or fails. */
export function firstLine(name: string, args: readonly string[], cwd?: string): string | undefined {
  const { status, stdout } = spawnSync(name, args, { encoding: 'utf8', timeout: 10_000, cwd });
  return status === 0 ? stdout.split('\n')[0].trim() : undefined;
}

function commitOf(root: string): string {
  const commit = firstLine('git', ['rev-parse', '--short=12', 'HEAD'], root);
  if (commit === undefined) return 'unknown';
  const changed = firstLine('git', ['status', '--porcelain', '--untracked-files=no'], root);
  return changed === '' ? commit : `${commit}+`;
}

function cpuFlags(): string[] {
  const line = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
  const present = new Set(line.trim().split(/\s+/));
  return FLAGS.filter((flag) => present.has(flag));
}
