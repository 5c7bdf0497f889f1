/**
 * An ext4 filesystem with files in the first part of a volume, and their checksums: mounted where this machine allows it,
 * else made as an image beside it and copied there and back.
 */
import { createHash, randomFillSync } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { DaemonProcess } from './daemon-process.js';
import { mountAt, unmount, whyNoMounts } from './loop-filesystem.js';
import { NbdDisk, whyNoFuse } from './nbd-mount.js';
import { hasProgram, mustRun } from './programs.js';

const FILE_BYTES_MAX = 4 * 2 ** 20;

/** Why the files can't be written through a mounted filesystem. */
export function whyNotMounted(): string | undefined {
  return whyNoMounts('nbdfuse', 'fusermount3', 'mkfs.ext4', 'e2fsck') ?? whyNoFuse();
}

/** Why there can't be such files at all. */
export function whyNoFiles(): string | undefined {
  const needed = whyNotMounted() === undefined ? [] : ['mkfs.ext4', 'e2fsck', 'debugfs', 'nbdcopy'];
  const missing = needed.find((name) => !hasProgram(name));
  return missing === undefined ? undefined : `${missing} is not installed`;
}

export class Ext4Files {
  readonly #volume: string;
  readonly #sizeBytes: number;
  readonly #directory: string;
  readonly #sums = new Map<string, string>();
  #attached = 0;

  /** `directory` is for what belongs to this machine: mount points, images. */
  constructor(volume: string, sizeBytes: number, directory: string) {
    this.#volume = volume;
    this.#sizeBytes = sizeBytes;
    this.#directory = directory;
    mkdirSync(directory, { recursive: true });
  }

  /** The same files on a volume that is to hold what this one does. */
  on(volume: string): Ext4Files {
    const other = new Ext4Files(volume, this.#sizeBytes, join(this.#directory, volume));
    for (const [name, sum] of this.#sums) other.#sums.set(name, sum);
    return other;
  }

  /** Makes the filesystem with random files of so many bytes in all. */
  async put(daemon: DaemonProcess, totalBytes: number): Promise<void> {
    const size = `${this.#sizeBytes / 1024}k`;
    if (whyNotMounted() === undefined) {
      const mount = (device: string) => mustRun('mkfs.ext4', ['-q', '-F', '-m', '0', device, size]);
      await this.#mounted(daemon, mount, (path) => this.#fill(path, totalBytes));
      return;
    }
    const [source, image] = [join(this.#directory, 'source'), join(this.#directory, 'image')];
    mkdirSync(source);
    this.#fill(source, totalBytes);
    await mustRun('mkfs.ext4', ['-q', '-F', '-m', '0', '-d', source, image, size]);
    await mustRun('nbdcopy', ['--flush', image, daemon.uri(this.#volume)]);
  }

  /** The filesystem is in order, and every file is what it was. */
  async verify(daemon: DaemonProcess): Promise<void> {
    if (whyNotMounted() === undefined) {
      const check = (device: string) => mustRun('e2fsck', ['-fn', device]);
      await this.#mounted(daemon, check, (path) => this.#compare(path));
      return;
    }
    const [image, back] = [join(this.#directory, 'back'), join(this.#directory, `files-${this.#attached++}`)];
    mkdirSync(back);
    closeSync(openSync(image, 'w'));
    await mustRun('nbdcopy', [daemon.uri(this.#volume), image]);
    truncateSync(image, this.#sizeBytes);
    await mustRun('e2fsck', ['-fn', image]);
    await mustRun('debugfs', ['-R', `rdump / ${back}`, image]);
    this.#compare(back);
  }

  async #mounted(
    daemon: DaemonProcess,
    prepare: (device: string) => Promise<unknown>,
    use: (path: string) => void,
  ): Promise<void> {
    const disk = await NbdDisk.attach(
      daemon.uri(this.#volume),
      join(this.#directory, `fuse-${this.#attached++}`),
    );
    const path = join(this.#directory, 'mnt');
    await prepare(disk.device);
    await mountAt(disk.device, path, 'noatime');
    use(path);
    await unmount(path);
    await disk.detach();
  }

  #fill(path: string, totalBytes: number): void {
    for (let left = totalBytes, i = 0; left > 0; i++) {
      const bytes = randomFillSync(
        Buffer.alloc(Math.min(left, 1 + Math.floor(Math.random() * FILE_BYTES_MAX))),
      );
      const name = `file-${i}`;
      writeFileSync(join(path, name), bytes);
      this.#sums.set(name, sum(bytes));
      left -= bytes.length;
    }
  }

  #compare(path: string): void {
    const wrong = [...this.#sums].filter(
      ([name, expected]) => sum(readFileSync(join(path, name))) !== expected,
    );
    if (this.#sums.size === 0 || wrong.length > 0)
      throw new Error(
        `${wrong.length} of ${this.#sums.size} files differ: ${wrong.map(([name]) => basename(name))}`,
      );
  }
}

function sum(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
