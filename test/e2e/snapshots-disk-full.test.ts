/** A disk that a volume and its snapshots have filled: what goes on, and what makes room. */
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { SnapshotInfo, VolumeInfo } from '../../src/admin/schemas.js';
import { DaemonProcess } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { loopFilesystem, SMALL_DISK_CONFIG, takeSpace, whyNoMounts } from '../support/loop-filesystem.js';
import { program, qemuIo } from '../support/nbd-io.js';

const MIB = 2 ** 20;
const DISK_BYTES = 128 * MIB;
const skipped = whyNoMounts('mkfs.ext4');

describe.skipIf(skipped !== undefined)(`snapshots on a full disk${skipped ? `: ${skipped}` : ''}`, () => {
  it('keep what they hold, can be read and deleted, and deleting one makes room again', async () => {
    const disk = await loopFilesystem('ext4', DISK_BYTES);
    const config = join(temporaryDirectory(), 'sealbd.toml');
    writeFileSync(config, SMALL_DISK_CONFIG);
    const data = join(disk, 'data');
    const daemon = await DaemonProcess.start(data, ['--config', config]);
    await daemon.ok('volume', 'create', 'v', '--size', '256M');
    const write = (value: number, from: number, count: number) =>
      qemuIo(
        daemon.uri('v'),
        ...Array.from({ length: count }, (_, i) => `write -P ${value} ${from + i}M 1M`),
        'flush',
      );
    const readSnapshot = (at: DaemonProcess) =>
      program('qemu-io', [
        '-r',
        '-f',
        'raw',
        at.uri('v@a'),
        '-c',
        'read -P 1 0 32M',
        '-c',
        'read -P 0 32M 8M',
      ]);
    expect((await write(1, 0, 32)).code).toBe(0);
    await daemon.ok('snapshot', 'create', 'v', 'a');
    expect((await write(2, 0, 24)).code).toBe(0);
    // The rest of the disk is taken by the volume, and the last of it by somebody else.
    const filled = await write(3, 64, 120);
    expect([filled.code, filled.output]).toEqual([1, expect.stringContaining('No space left')]);
    const other = join(disk, 'other');
    takeSpace(other);

    const refused = await daemon.run(['snapshot', 'create', 'v', 'b']);
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringMatching(/no (room|space)/)]);
    expect(await readSnapshot(daemon)).toMatchObject({ code: 0 });
    // What the snapshot has is not given back by this, but it works.
    expect((await qemuIo(daemon.uri('v'), 'discard 24M 8M', 'flush')).code).toBe(0);
    const [a] = await daemon.json<SnapshotInfo[]>(['snapshot', 'list', 'v']);
    expect(a.uniqueBytes).toBeGreaterThan(20 * MIB);
    await daemon.signal('SIGKILL');
    const again = await DaemonProcess.start(data, ['--config', config]);
    expect(await readSnapshot(again)).toMatchObject({ code: 0 });
    expect((await qemuIo(again.uri('v'), 'read -P 2 0 24M', 'read -P 0 24M 8M')).code).toBe(0);

    await again.ok('snapshot', 'delete', 'v', 'a');
    const { snapshotBytes } = await again.json<VolumeInfo>(['volume', 'info', 'v']);
    expect(snapshotBytes).toBe(0);
    const written = await qemuIo(
      again.uri('v'),
      ...Array.from({ length: 16 }, (_, i) => `write -P 4 ${200 + i}M 1M`),
      'flush',
    );
    expect(written).toMatchObject({ code: 0 });
    rmSync(other);
    await again.ok('snapshot', 'create', 'v', 'c');
    expect((await again.stop()).code).toBe(0);
  }, 120_000);
});
