import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { KeyStatus, SnapshotInfo, VolumeInfo } from '../../src/admin/schemas.js';
import { DaemonProcess } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { program, qemuIo } from '../support/nbd-io.js';

const MIB = 2 ** 20;
const dataDirectory = () => join(temporaryDirectory(), 'data');

async function serving(size = '64M'): Promise<DaemonProcess> {
  const daemon = await DaemonProcess.start(dataDirectory());
  await daemon.ok('volume', 'create', 'v', '--size', size);
  return daemon;
}

async function io(daemon: DaemonProcess, name: string, ...commands: string[]): Promise<void> {
  expect(await qemuIo(daemon.uri(name), ...commands)).toMatchObject({ code: 0 });
}

/** A snapshot is read-only, and qemu-io must know. */
const read = (daemon: DaemonProcess, name: string, ...commands: string[]) =>
  program('qemu-io', ['-r', '-f', 'raw', daemon.uri(name), ...commands.flatMap((one) => ['-c', one])]);

const list = (daemon: DaemonProcess) => daemon.json<SnapshotInfo[]>(['snapshot', 'list', 'v']);
const info = (daemon: DaemonProcess) => daemon.json<VolumeInfo>(['volume', 'info', 'v']);

describe('snapshots of a volume that is served', () => {
  it('are exported read-only as NAME@SNAP, and outlive kill -9', async () => {
    const daemon = await serving();
    await io(daemon, 'v', 'write -P 0x11 0 8M');
    const made = await daemon.json<SnapshotInfo>(['snapshot', 'create', 'v', 'monday']);
    expect(made).toMatchObject({ volume: 'v', name: 'monday', exportName: 'v@monday', mappedBytes: 8 * MIB });
    await io(daemon, 'v', 'write -P 0x22 0 4M');
    const snapshot = daemon.uri('v@monday');
    const shown = JSON.parse((await program('nbdinfo', ['--json', snapshot])).output);
    expect(shown.exports[0]).toMatchObject({ is_read_only: true, 'export-size': 64 * MIB });
    expect(await read(daemon, 'v@monday', 'read -P 0x11 0 8M', 'read -P 0 8M 8M')).toMatchObject({ code: 0 });
    expect((await qemuIo(snapshot, 'write -P 0x33 0 4k')).code).not.toBe(0);
    const names = (await program('nbdinfo', ['--list', '--json', daemon.uri('')])).output;
    expect(JSON.parse(names).exports.map((one: { 'export-name': string }) => one['export-name'])).toEqual([
      'v',
      'v@monday',
    ]);
    expect((await program('nbdinfo', [daemon.uri('v@tuesday')])).code).not.toBe(0);

    await daemon.signal('SIGKILL');
    const again = await DaemonProcess.start(daemon.data);
    expect(await read(again, 'v@monday', 'read -P 0x11 0 8M')).toMatchObject({ code: 0 });
    expect((await info(again)).snapshots).toBe(1);
    const audit = readFileSync(join(again.data, 'audit.jsonl'), 'utf8');
    expect(audit).toContain('"event":"snapshot-create"');
    expect(await again.ok('volume', 'verify', 'v')).toContain('v');
  });

  it('equal what the volume was at one instant, made while clients write', async () => {
    const daemon = await serving();
    // One request after another, each of one value over all of the range: a snapshot has a whole one of them, or falls
    // into one; then it has blocks of two that follow each other.
    const writes = Array.from({ length: 250 }, (_, i) => [`write -P ${i + 1} 0 512k`, 'sleep 8']).flat();
    const writing = io(daemon, 'v', ...writes);
    await expect.poll(async () => (await info(daemon)).mappedBytes).toBeGreaterThan(0);
    const names = ['a', 'b', 'c', 'd'];
    for (const name of names) await daemon.ok('snapshot', 'create', 'v', name);
    await writing;
    let last = 0;
    const highest: number[] = [];
    for (const name of names) {
      const copy = join(temporaryDirectory(), 'copy');
      expect((await program('nbdcopy', [daemon.uri(`v@${name}`), copy])).code).toBe(0);
      const bytes = readFileSync(copy).subarray(0, 512 * 1024);
      const values = [...new Set(bytes)].sort((one, other) => one - other);
      expect(values.length).toBeLessThanOrEqual(2);
      expect(values[values.length - 1] - values[0]).toBeLessThanOrEqual(1);
      for (let at = 0; at < bytes.length; at += 4096)
        expect(new Set(bytes.subarray(at, at + 4096)).size).toBe(1);
      expect(values[0]).toBeGreaterThanOrEqual(last);
      last = values[values.length - 1];
      highest.push(last);
    }
    expect(new Set(highest).size).toBeGreaterThan(1);
    expect(highest[0]).toBeLessThan(250);
  });

  it('give back what only they held when they are deleted', async () => {
    const daemon = await serving();
    for (const [i, name] of ['a', 'b'].entries()) {
      await io(daemon, 'v', `write -P ${i + 1} 0 16M`);
      await daemon.ok('snapshot', 'create', 'v', name);
    }
    await io(daemon, 'v', 'write -P 9 0 16M');
    const [a] = await list(daemon);
    expect(a.uniqueBytes).toBeGreaterThan(8 * MIB);
    const before = await info(daemon);
    expect(before.snapshotBytes).toBeGreaterThan(16 * MIB);
    await daemon.ok('snapshot', 'delete', 'v', 'a');
    await daemon.ok('snapshot', 'delete', 'v', 'b');
    const after = await info(daemon);
    expect(after).toMatchObject({ snapshots: 0, snapshotBytes: 0 });
    expect(before.storedBytes - after.storedBytes).toBeGreaterThan(24 * MIB);
    expect((await daemon.run(['snapshot', 'delete', 'v', 'a'])).code).toBe(1);
  });

  it('are rolled back to, in size too, unless somebody is attached', async () => {
    const daemon = await serving();
    await io(daemon, 'v', 'write -P 1 0 4M');
    await daemon.ok('snapshot', 'create', 'v', 'a');
    await io(daemon, 'v', 'write -P 2 0 4M', 'write -P 2 40M 1M', 'flush');
    await daemon.ok('volume', 'resize', 'v', '32M', '--shrink');
    const client = program('qemu-io', ['-f', 'raw', daemon.uri('v'), '-c', 'sleep 1500']);
    await expect.poll(async () => (await info(daemon)).clients).toBe(1);
    const refused = await daemon.run(['snapshot', 'rollback', 'v', 'a']);
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('attached')]);
    await client;
    await expect.poll(async () => (await info(daemon)).clients).toBe(0);
    await daemon.ok('snapshot', 'rollback', 'v', 'a');
    expect(await info(daemon)).toMatchObject({ state: 'serving', sizeBytes: 64 * MIB, mappedBytes: 4 * MIB });
    await io(daemon, 'v', 'read -P 1 0 4M', 'read -P 0 40M 1M', 'write -P 3 0 1M');
    await daemon.signal('SIGKILL');
    const again = await DaemonProcess.start(daemon.data);
    await io(again, 'v', 'read -P 1 1M 3M', 'read -P 0 40M 1M');
    expect(await read(again, 'v@a', 'read -P 1 0 4M')).toMatchObject({ code: 0 });
  });

  it('are refused for a volume that is stopped, and gone with one that is deleted', async () => {
    const daemon = await serving();
    await daemon.ok('snapshot', 'create', 'v', 'a');
    expect((await daemon.run(['snapshot', 'create', 'v', 'a'])).code).toBe(1);
    expect((await daemon.run(['snapshot', 'create', 'v', 'a@b'])).code).toBe(2);
    expect((await daemon.run(['snapshot', 'create', 'w', 'a'])).code).toBe(1);
    await daemon.ok('volume', 'stop', 'v');
    expect((await daemon.run(['snapshot', 'list', 'v'])).code).toBe(1);
    expect((await program('nbdinfo', [daemon.uri('v@a')])).code).not.toBe(0);
    await daemon.ok('volume', 'start', 'v');
    expect((await list(daemon)).map(({ name }) => name)).toEqual(['a']);
    await daemon.ok('volume', 'delete', 'v', '--yes');
    expect((await program('nbdinfo', [daemon.uri('v@a')])).code).not.toBe(0);
    await daemon.ok('volume', 'create', 'v', '--size', '64M');
    expect(await list(daemon)).toEqual([]);
  });
});

describe('key rotate --reencrypt', () => {
  it('rewrites what snapshots hold: the old DEK is gone, and they read as before', async () => {
    const daemon = await serving();
    await io(daemon, 'v', 'write -P 1 0 16M');
    await daemon.ok('snapshot', 'create', 'v', 'a');
    await io(daemon, 'v', 'write -P 2 4M 8M');
    await daemon.ok('snapshot', 'create', 'v', 'b');
    await io(daemon, 'v', 'write -P 3 8M 16M');
    await daemon.ok('key', 'rotate', 'v', '--reencrypt');
    const [status] = await daemon.json<KeyStatus[]>(['key', 'status', 'v']);
    expect(status.deks.map(({ id, state }) => [id, state])).toEqual([[2, 'active']]);
    const expectAll = async (at: DaemonProcess): Promise<void> => {
      expect(await read(at, 'v@a', 'read -P 1 0 16M', 'read -P 0 16M 8M')).toMatchObject({ code: 0 });
      expect(await read(at, 'v@b', 'read -P 1 0 4M', 'read -P 2 4M 8M', 'read -P 1 12M 4M')).toMatchObject({
        code: 0,
      });
      await io(at, 'v', 'read -P 1 0 4M', 'read -P 2 4M 4M', 'read -P 3 8M 16M');
    };
    await expectAll(daemon);
    await daemon.signal('SIGKILL');
    await expectAll(await DaemonProcess.start(daemon.data));
  });
});
