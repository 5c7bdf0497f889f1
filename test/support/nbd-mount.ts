/** An export as a block device of this machine, without a kernel NBD module: nbdfuse makes it a file, losetup a disk. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { mustRun, runProgram } from './programs.js';

const READY_MS_MAX = 10_000;
const END_MS_MAX = 10_000;
const devices = new Map<string, ChildProcess>();

/** Why there can be no such device, beyond what keeps this process from mounting. */
export function whyNoFuse(): string | undefined {
  return existsSync('/dev/fuse') ? undefined : 'there is no /dev/fuse';
}

process.on('exit', () => {
  for (const [device, fuse] of devices) {
    spawnSync('losetup', ['-d', device], { timeout: 10_000 });
    fuse.kill();
  }
});

export class NbdDisk {
  /** /dev/loopN */
  readonly device: string;
  readonly #directory: string;
  readonly #fuse: ChildProcess;

  private constructor(device: string, directory: string, fuse: ChildProcess) {
    this.device = device;
    this.#directory = directory;
    this.#fuse = fuse;
  }

  /** Attached until `detach`, or until the test has finished. `directory` is made for it. */
  static async attach(uri: string, directory: string): Promise<NbdDisk> {
    mkdirSync(directory, { recursive: true });
    const fuse = spawn('nbdfuse', ['-C', '4', join(directory, 'nbd'), uri], { stdio: 'ignore' });
    const ended = new Promise<void>((resolve) => {
      fuse.once('exit', () => resolve());
      fuse.once('error', () => resolve());
    });
    onTestFinished(() => stopFuse(fuse, directory));
    await untilThere(join(directory, 'nbd'), ended);
    const device = (await mustRun('losetup', ['-f', '--show', join(directory, 'nbd')])).trim();
    devices.set(device, fuse);
    const disk = new NbdDisk(device, directory, fuse);
    onTestFinished(() => disk.detach());
    return disk;
  }

  /** What is mounted from it must be unmounted before. */
  async detach(): Promise<void> {
    if (!devices.delete(this.device)) return;
    await mustRun('losetup', ['-d', this.device]);
    await stopFuse(this.#fuse, this.#directory);
  }
}

async function untilThere(path: string, ended: Promise<void>): Promise<void> {
  let gone = false;
  void ended.then(() => {
    gone = true;
  });
  const deadline = Date.now() + READY_MS_MAX;
  while (!existsSync(path)) {
    if (gone || Date.now() > deadline) throw new Error(`nbdfuse did not make ${path}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function stopFuse(fuse: ChildProcess, directory: string): Promise<void> {
  if (fuse.exitCode !== null || fuse.signalCode !== null) return;
  const ended = new Promise<boolean>((resolve) => fuse.once('exit', () => resolve(true)));
  // The loop device lets go of the file a little after losetup returned.
  for (const deadline = Date.now() + END_MS_MAX; Date.now() < deadline; ) {
    await runProgram('fusermount3', ['-u', directory], { timeoutMs: END_MS_MAX });
    if (await Promise.race([ended, new Promise<boolean>((resolve) => setTimeout(resolve, 100, false))]))
      return;
  }
  await runProgram('fusermount3', ['-uz', directory], { timeoutMs: END_MS_MAX });
  fuse.kill('SIGKILL');
  await ended;
}
