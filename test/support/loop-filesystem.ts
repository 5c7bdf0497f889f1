/** Small real filesystems on loop-mounted files, for tests that fill disks. Nothing of them outlives the test. */
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import { errnoOf } from '../../src/base/errors.js';
import { hasProgram, mustRun, runProgram } from './programs.js';

export type FilesystemKind = 'ext4' | 'xfs';

const MIB = 2 ** 20;
const UNMOUNT_ATTEMPTS = 50;
const UNMOUNT_RETRY_MS = 100;
const mounted = new Set<string>();

// The hooks of a test do not run when its process is told to go.
process.on('exit', () => {
  for (const path of mounted) spawnSync('umount', ['-l', path], { timeout: 10_000 });
});

/** Why this process can't mount a file, or undefined where it can. */
export function whyNoMounts(...programs: string[]): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can mount';
  const missing = ['losetup', 'mount', 'umount', ...programs].find((name) => !hasProgram(name));
  if (missing !== undefined) return `${missing} is not installed`;
  const free = spawnSync('losetup', ['-f'], { timeout: 10_000, encoding: 'utf8' });
  return free.status === 0 ? undefined : `there are no loop devices: ${free.stderr.trim()}`;
}

/** Makes a filesystem in `device`, a file or a block device. */
export async function makeFilesystem(kind: FilesystemKind, device: string): Promise<void> {
  // No blocks are kept back for root, who the tests run as.
  if (kind === 'ext4') await mustRun('mkfs.ext4', ['-q', '-F', '-m', '0', device]);
  else await mustRun('mkfs.xfs', ['-q', '-f', device]);
}

/** Mounts; unmounted when the test has finished, at the latest. */
export async function mountAt(device: string, path: string, options: string): Promise<void> {
  mkdirSync(path, { recursive: true });
  onTestFinished(() => unmount(path));
  mounted.add(path);
  await mustRun('mount', ['-o', options, device, path]);
}

/** Unmounts what is mounted there. Waits for those who still use it; in the end it goes without them. */
export async function unmount(path: string): Promise<void> {
  if (!mounted.has(path)) return;
  for (let attempt = 1; ; attempt++) {
    const { code, stderr } = await runProgram('umount', [path], { timeoutMs: 30_000 });
    if (code === 0 || stderr.includes('not mounted')) break;
    if (attempt === UNMOUNT_ATTEMPTS) {
      await mustRun('umount', ['-l', path]);
      mounted.delete(path);
      throw new Error(`${path} stayed busy: ${stderr}`);
    }
    await new Promise((resolve) => setTimeout(resolve, UNMOUNT_RETRY_MS));
  }
  mounted.delete(path);
}

/** A mounted filesystem of its own in a file. Start what uses it after this, so that it ends before. */
export async function loopFilesystem(kind: FilesystemKind, sizeBytes: number): Promise<string> {
  const directory = mkdtempSync(join(tmpdir(), 'sealbd-disk-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const image = join(directory, 'image');
  closeSync(openSync(image, 'w'));
  truncateSync(image, sizeBytes);
  await makeFilesystem(kind, image);
  const path = join(directory, 'mnt');
  await mountAt(image, path, 'loop');
  return path;
}

/** A daemon's configuration whose files are in proportion to a disk of some 100 MiB. */
export const SMALL_DISK_CONFIG = `[tuning]
segment_slots = 1024
checkpoint_after = "16M"
checkpoint_interval = "1s"
reserve = 2
spares = 2
`;

export function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}

/** Lets a file grow until it has taken whatever space is left. */
export function takeSpace(path: string): void {
  const steps = growing(path);
  while (!steps.next().done);
}

/** The same with turns for whatever else this process serves: the space may come slowly, and come free again. */
export async function takeSpaceInTurns(path: string): Promise<void> {
  const steps = growing(path);
  while (!steps.next().done) await setImmediate();
}

function* growing(path: string): Generator<void, void> {
  closeSync(openSync(path, 'a'));
  for (const step of [MIB, 4096, 1]) {
    const chunk = Buffer.alloc(step, 0xaa);
    const fd = openSync(path, 'a');
    try {
      for (;;) {
        writeSync(fd, chunk);
        yield;
      }
    } catch (error) {
      if (errnoOf(error) !== 'ENOSPC') throw error;
    } finally {
      closeSync(fd);
    }
  }
}
