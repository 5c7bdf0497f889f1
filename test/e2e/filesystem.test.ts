/** Real filesystems on a volume: made, filled, trimmed, checked, and there again after restarts of the daemon. */
import { createHash, randomFillSync } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { VolumeInfo } from '../../src/admin/schemas.js';
import { DaemonProcess } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import {
  type FilesystemKind,
  makeFilesystem,
  mountAt,
  unmount,
  whyNoMounts,
} from '../support/loop-filesystem.js';
import { NbdDisk, whyNoFuse } from '../support/nbd-mount.js';
import { mustRun } from '../support/programs.js';

const MIB = 2 ** 20;
const FILES = 60;
const FILE_BYTES_MAX = 2 * MIB;

const CASES: { kind: FilesystemKind; cipher: string; sizeBytes: number; check: string[]; tools: string[] }[] =
  [
    {
      kind: 'ext4',
      cipher: 'aes-256-gcm',
      sizeBytes: 256 * MIB,
      check: ['e2fsck', '-fn'],
      tools: ['mkfs.ext4', 'e2fsck'],
    },
    // The smallest that mkfs.xfs makes.
    {
      kind: 'xfs',
      cipher: 'aes-256-ctr',
      sizeBytes: 320 * MIB,
      check: ['xfs_repair', '-n'],
      tools: ['mkfs.xfs', 'xfs_repair'],
    },
  ];

const sum = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Random files of random sizes, some of them rewritten in the middle. Returns their sums by name. */
function fill(directory: string): Map<string, string> {
  const sums = new Map<string, string>();
  mkdirSync(directory, { recursive: true });
  for (let i = 0; i < FILES; i++) {
    const bytes = randomFillSync(Buffer.alloc(1 + Math.floor(Math.random() * FILE_BYTES_MAX)));
    const path = join(directory, `file-${i}`);
    writeFileSync(path, bytes);
    if (i % 4 === 0) {
      const at = Math.floor(bytes.length / 3);
      randomFillSync(bytes, at, Math.floor(bytes.length / 4));
      const fd = openSync(path, 'r+');
      writeSync(fd, bytes, at, Math.floor(bytes.length / 4), at);
      fsyncSync(fd);
      closeSync(fd);
    }
    sums.set(path, sum(bytes));
  }
  return sums;
}

function expectSums(sums: ReadonlyMap<string, string>): void {
  for (const [path, expected] of sums) expect(sum(readFileSync(path)), path).toBe(expected);
}

async function mappedBytes(daemon: DaemonProcess): Promise<number> {
  return (await daemon.json<VolumeInfo>(['volume', 'info', 'v'])).mappedBytes ?? 0;
}

for (const { kind, cipher, sizeBytes, check, tools } of CASES) {
  const skipped = whyNoMounts('nbdfuse', 'fusermount3', 'fstrim', ...tools) ?? whyNoFuse();
  describe.skipIf(skipped !== undefined)(
    `${kind} on ${cipher}${skipped === undefined ? '' : ` (${skipped})`}`,
    () => {
      it('keeps its files over restarts, gives space back, and passes its own check', {
        timeout: 180_000,
      }, async () => {
        const base = temporaryDirectory();
        const data = join(base, 'data');
        const mountPoint = join(base, 'mnt');
        let attached = 0;
        const session = async (
          daemon: DaemonProcess,
          use: () => Promise<void>,
          prepare: (device: string) => Promise<void>,
        ): Promise<void> => {
          const disk = await NbdDisk.attach(daemon.uri('v'), join(base, `fuse-${attached++}`));
          await prepare(disk.device);
          await mountAt(disk.device, mountPoint, 'noatime');
          await use();
          await unmount(mountPoint);
          await mustRun(check[0], [...check.slice(1), disk.device]);
          await disk.detach();
        };
        const nothing = async (): Promise<void> => undefined;

        let daemon = await DaemonProcess.start(data);
        await daemon.ok('volume', 'create', 'v', '--size', String(sizeBytes), '--cipher', cipher);
        let sums = new Map<string, string>();
        await session(
          daemon,
          async () => {
            sums = fill(join(mountPoint, 'kept'));
            fill(join(mountPoint, 'deleted'));
          },
          (device) => makeFilesystem(kind, device),
        );
        expect((await daemon.stop()).code).toBe(0);

        daemon = await DaemonProcess.start(data);
        await session(
          daemon,
          async () => {
            expectSums(sums);
            await mustRun('fstrim', [mountPoint]);
            const before = await mappedBytes(daemon);
            rmSync(join(mountPoint, 'deleted'), { recursive: true });
            await mustRun('sync', ['-f', mountPoint]);
            await mustRun('fstrim', [mountPoint]);
            expect(await mappedBytes(daemon)).toBeLessThan(before - (FILES * FILE_BYTES_MAX) / 4);
            expectSums(sums);
          },
          nothing,
        );
        // What unmounting wrote was flushed by it, so that it survives this.
        await daemon.signal('SIGKILL');

        daemon = await DaemonProcess.start(data);
        await session(daemon, async () => expectSums(sums), nothing);
        expect((await daemon.run(['volume', 'verify', 'v'])).code).toBe(0);
        expect((await daemon.stop()).code).toBe(0);
      });
    },
  );
}
