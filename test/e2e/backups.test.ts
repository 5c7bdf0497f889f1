/** Backups, restores and clones as an operator makes them, over real daemons. Needs `npm run build`. */
import { existsSync, readdirSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { KeyUsage, VolumeInfo } from '../../src/admin/schemas.js';
import type { BackupInfo } from '../../src/backup/info.js';
import type { VerifyReport } from '../../src/backup/offline.js';
import { Command } from '../../src/nbd/wire/constants.js';
import { type DaemonProcess, sealbdProcess } from '../support/daemon-process.js';
import { Ext4Files, whyNoFiles } from '../support/ext4-files.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { adminOf, auditOf, KeyScene } from '../support/key-scene.js';
import { program, qemuIo } from '../support/nbd-io.js';
import { content, versionOf } from '../support/nbd-traffic.js';
import { PipelinedClient } from '../support/pipelined-client.js';
import { hasProgram } from '../support/programs.js';
import { testSeed } from '../support/seeded-random.js';
import { BLOCK, seededRandom } from '../support/volume-harness.js';
import { VolumeLoad } from '../support/volume-load.js';

const MIB = 2 ** 20;
const FILESYSTEM_BYTES = 32 * MIB;
const FILES_BYTES = 12 * MIB;
const LOAD_BLOCKS = 2048;
const SIZE_BYTES = FILESYSTEM_BYTES + LOAD_BLOCKS * BLOCK;
const KILLS = Number(process.env.SEALBD_KILL_ROUNDS ?? 1);
const seed = testSeed('backups');

const skipped =
  whyNoFiles() ??
  ['qemu-io', 'qemu-img']
    .map((name) => (hasProgram(name) ? undefined : `${name} is not installed`))
    .find(Boolean);

async function expectSame(daemon: DaemonProcess, one: string, other: string): Promise<void> {
  const { code, output } = await program('qemu-img', [
    'compare',
    '-f',
    'raw',
    daemon.uri(one),
    daemon.uri(other),
  ]);
  if (code !== 0) throw new Error(`${one} and ${other}: ${output}`);
}

/** Every block of the load is one that was written, whole. */
async function expectWholeBlocks(daemon: DaemonProcess, volume: string): Promise<void> {
  const client = await PipelinedClient.connect(daemon.ready.listen[0], volume);
  const { error, data } = await client.call(Command.READ, FILESYSTEM_BYTES, LOAD_BLOCKS * BLOCK, {}, true);
  expect(error).toBe(0);
  for (let lba = 0; lba < LOAD_BLOCKS; lba++) {
    const block = data.subarray(lba * BLOCK, (lba + 1) * BLOCK);
    expect(Buffer.compare(block, content(lba, versionOf(block))), `block ${lba}`).toBe(0);
  }
  await client.close();
}

function bytesIn(path: string): number {
  return readdirSync(path).reduce((sum, name) => sum + statSync(join(path, name)).size, 0);
}

describe.skipIf(skipped !== undefined)('backups', () => {
  it('follow the key of their volume, hold what changed, and end with their key', {
    timeout: 180_000,
  }, async () => {
    const scene = await KeyScene.start();
    const { kms } = scene;
    const env = kms.environment();
    const [first, second] = [kms.createKey(), kms.createKey()];
    const daemon = await scene.daemon();
    const at = (name: string) => join(scene.data, '..', name);
    await daemon.ok('volume', 'create', 'v', '--size', String(SIZE_BYTES), '--key', `awskms:///${first.arn}`);
    const ext4 = new Ext4Files('v', FILESYSTEM_BYTES, join(temporaryDirectory(), 'files'));
    await ext4.put(daemon, FILES_BYTES);
    const load = new VolumeLoad({
      ...{ volume: 'v', firstBlock: FILESYSTEM_BYTES / BLOCK, blocks: LOAD_BLOCKS },
      random: seededRandom(seed),
    });
    await load.attach(daemon);
    await load.goOn();
    await daemon.ok('backup', 'create', 'v', at('b0'));
    await load.goOn();
    await load.detach();
    await daemon.ok('key', 'rewrap', 'v');
    await daemon.ok('backup', 'create', 'v', at('b1'), '--base', at('b0'));
    await daemon.ok('key', 'set', 'v', `awskms:///${second.arn}`);
    await daemon.ok('backup', 'create', 'v', at('b2'), '--base', at('b1'));
    await daemon.ok('key', 'rotate', 'v', '--reencrypt');
    await daemon.ok('backup', 'create', 'v', at('b3'), '--base', at('b2'));
    // A re-encryption moved all of the data, and changed none of it.
    expect(bytesIn(at('b0'))).toBeGreaterThan(FILES_BYTES);
    for (const name of ['b2', 'b3']) expect(bytesIn(at(name)), name).toBeLessThan(64 * 1024);

    const usable = await daemon.run(['backup', 'info', at('b3'), '--json'], { env });
    const info = JSON.parse(usable.stdout) as BackupInfo;
    expect(info).toMatchObject({ volume: 'v', kind: 'incremental', problem: null, keyUsable: true });
    expect(info.chain.map(({ path }) => path)).toEqual(['b0', 'b1', 'b2', 'b3'].map(at));
    const verified = await daemon.run(['backup', 'verify', at('b3'), '--json'], { env });
    expect(verified.code).toBe(0);
    expect(JSON.parse(verified.stdout)).toMatchObject({ authenticated: true, problems: [] });

    await daemon.ok('restore', at('b3'), 'r3');
    await expectSame(daemon, 'v', 'r3');
    await daemon.ok('restore', at('b0'), 'r0');
    await ext4.on('r0').verify(daemon);
    await expectWholeBlocks(daemon, 'r0');
    const restored = await daemon.json<VolumeInfo>(['volume', 'info', 'r3']);
    expect(restored).toMatchObject({ keyUri: `awskms:///${second.arn}`, state: 'serving' });

    // What was restored is a volume like any other: its key can be changed and its data re-encrypted.
    await daemon.ok('key', 'rotate', 'r3', '--reencrypt');
    await expectSame(daemon, 'v', 'r3');
    await daemon.ok('snapshot', 'create', 'v', 's');
    await daemon.ok('snapshot', 'clone', 'v', 's', 'c');
    await expectSame(daemon, 'v@s', 'c');
    expect((await qemuIo(daemon.uri('c'), 'write -P 77 0 1M', 'flush')).code).toBe(0);
    await expectSame(daemon, 'v', 'v@s');
    await daemon.ok('key', 'rotate', 'v', '--reencrypt');
    await daemon.ok('volume', 'delete', 'v', '--yes');
    expect((await qemuIo(daemon.uri('c'), 'read -P 77 0 1M')).code).toBe(0);
    expect((await daemon.run(['volume', 'verify', 'c'])).code).toBe(0);

    // Who moved the volume to another key needs the old one only for what was backed up before.
    kms.setState(first.arn, 'PendingDeletion');
    const refused = await daemon.run(['restore', at('b0'), 'x']);
    expect([refused.code, refused.stderr]).toEqual([4, expect.stringContaining(first.arn)]);
    await daemon.ok('restore', at('b3'), 'y');
    await expectSame(daemon, 'r3', 'y');
    await ext4.on('y').verify(daemon);
    kms.setState(second.arn, 'PendingDeletion');
    expect((await daemon.run(['restore', at('b3'), 'z'])).code).toBe(4);
    const keyGone = await daemon.run(['backup', 'info', at('b3'), '--json'], { env });
    expect([keyGone.code, JSON.parse(keyGone.stdout).keyUsable]).toEqual([4, false]);
    const keyless = await daemon.run(['backup', 'verify', at('b3'), '--json'], { env });
    expect(keyless.code).toBe(0);
    expect(JSON.parse(keyless.stdout) as VerifyReport).toMatchObject({ authenticated: false, problems: [] });
    expect((await daemon.run(['backup', 'verify', at('b3'), '--require-key'], { env })).code).toBe(4);
    const events = auditOf(scene.data).map(({ event }) => event);
    expect(events.filter((event) => event === 'backup')).toHaveLength(4);
    expect(events.filter((event) => event === 'restore')).toHaveLength(3);
    expect(events).toContain('clone');
    const names = (await daemon.json<VolumeInfo[]>(['volume', 'list'])).map(({ name }) => name);
    expect(names).toEqual(['c', 'r0', 'r3', 'y']);
    const usage = await daemon.json<KeyUsage[]>(['key', 'usage']);
    expect(usage.length).toBeGreaterThan(0);
  });

  it(`killed at random moments they are whole, or none, seed ${seed}`, { timeout: 180_000 }, async () => {
    const scene = await KeyScene.start();
    const random = seededRandom(seed);
    const at = (name: string) => join(scene.data, '..', name);
    const start = () => scene.daemon();
    let daemon = await start();
    await daemon.ok('volume', 'create', 'v', '--size', '256M', '--key', 'local:default');
    expect((await qemuIo(daemon.uri('v'), 'write -P 5 0 60M', 'write -P 6 100M 30M', 'flush')).code).toBe(0);
    await daemon.ok('snapshot', 'create', 'v', 's');
    const names = async () => (await adminOf(daemon).listVolumes()).map(({ name }) => name);

    /** Kills the daemon a while after the command began. */
    const killedDuring = async (args: readonly string[], within: number): Promise<void> => {
      const command = sealbdProcess([...args, '--data', scene.data]);
      await new Promise((resolve) => setTimeout(resolve, 150 + random() * within));
      await daemon.signal('SIGKILL');
      await command.ended;
      daemon = await start();
    };
    for (let round = 0; round < KILLS; round++) {
      await killedDuring(['backup', 'create', 'v', at('b')], 400);
      if (!existsSync(join(at('b'), 'manifest'))) {
        if (existsSync(at('b'))) expect((await daemon.run(['backup', 'verify', at('b')])).code).toBe(5);
        await daemon.ok('backup', 'create', 'v', at('b'));
      }
      expect((await daemon.run(['backup', 'verify', at('b')])).code).toBe(0);

      await killedDuring(['restore', at('b'), 'r'], 500);
      const left = readdirSync(join(scene.data, 'volumes'));
      expect(left.filter((name) => name.startsWith('.'))).toEqual([]);
      if (!(await names()).includes('r')) await daemon.ok('restore', at('b'), 'r');
      await expectSame(daemon, 'v', 'r');
      await daemon.ok('volume', 'delete', 'r', '--yes');
      await program('rm', ['-r', at('b')]);

      await killedDuring(['snapshot', 'clone', 'v', 's', 'c'], 200);
      expect(readdirSync(join(scene.data, 'volumes')).filter((name) => name.startsWith('.'))).toEqual([]);
      if (!(await names()).includes('c')) await daemon.ok('snapshot', 'clone', 'v', 's', 'c');
      await expectSame(daemon, 'v@s', 'c');
      expect((await daemon.run(['volume', 'verify', 'c'])).code).toBe(0);
      await daemon.ok('volume', 'delete', 'c', '--yes');
      await expectSame(daemon, 'v', 'v@s');
    }
  });

  it('take as much room as what changed since their base', { timeout: 60_000 }, async () => {
    const scene = await KeyScene.start();
    const daemon = await scene.daemon();
    const at = (name: string) => join(scene.data, '..', name);
    await daemon.ok('volume', 'create', 'v', '--size', '64M', '--key', 'local:default');
    const written = async (...commands: string[]) =>
      expect((await qemuIo(daemon.uri('v'), ...commands, 'flush')).code).toBe(0);
    await written('write -P 1 0 16M');
    await daemon.ok('backup', 'create', 'v', at('b0'));
    await written('write -P 2 3M 1M');
    await daemon.ok('backup', 'create', 'v', at('b1'), '--base', at('b0'));
    await written('write -P 3 1M 2M', 'write -P 4 40M 2M');
    await daemon.ok('backup', 'create', 'v', at('b2'), '--base', at('b1'));
    const [full, one, four] = ['b0', 'b1', 'b2'].map((name) => bytesIn(at(name)));
    expect(full).toBeGreaterThan(16 * MIB);
    expect(one).toBeGreaterThan(MIB);
    expect(four / one).toBeGreaterThan(3);
    expect(four / one).toBeLessThan(5);
  });

  it('are counted by key usage until they are forgotten, and those that are there are not', async () => {
    const scene = await KeyScene.start();
    const daemon = await scene.daemon();
    const [here, elsewhere] = ['b', 'c'].map((name) => join(scene.data, '..', name));
    await daemon.ok('volume', 'create', 'v', '--size', '16M', '--key', 'local:default');
    await daemon.ok('backup', 'create', 'v', here);
    const usage = () => daemon.ok('key', 'usage');
    expect(await usage()).toContain(`backup of v at ${here}, DEK 1`);
    const there = await daemon.run(['backup', 'forget', here]);
    expect([there.code, there.stderr]).toEqual([1, expect.stringContaining('needs its keys')]);
    renameSync(here, elsewhere);
    expect(await usage()).toContain('(not there now)');
    const forgotten = JSON.parse(await daemon.ok('backup', 'forget', here, '--json'));
    expect(forgotten).toMatchObject({ backups: [{ path: here, volume: 'v', deks: [1] }], dropped: 0 });
    expect(await usage()).not.toContain(here);
    expect((await daemon.run(['backup', 'forget', here])).code).toBe(1);
    expect(auditOf(scene.data)).toContainEqual(
      expect.objectContaining({ event: 'backup-forget', path: here, keyUri: 'local:default' }),
    );
    // No file of it was touched.
    await daemon.ok('backup', 'verify', elsewhere, '--require-key', '--data', scene.data);
  });

  it('are refused where they can not be', { timeout: 60_000 }, async () => {
    const scene = await KeyScene.start();
    const daemon = await scene.daemon();
    const at = (name: string) => join(scene.data, '..', name);
    for (const name of ['v', 'w'])
      await daemon.ok('volume', 'create', name, '--size', '64M', '--key', 'local:default');
    await daemon.ok('backup', 'create', 'v', at('b'));
    const refusals: [string[], number, RegExp][] = [
      [['backup', 'create', 'v', at('b')], 1, /holds a backup already/],
      [['backup', 'create', 'v', join(scene.data, 'volumes', 'v')], 2, /inside the directory of the volumes/],
      [['backup', 'create', 'w', at('c'), '--base', at('b')], 1, /is a backup of volume/],
      [['restore', scene.data, 'x'], 5, /no manifest/],
      [['restore', at('b'), 'v'], 1, /exists already/],
      [['backup', 'verify', at('nothing')], 1, /no such backup/],
    ];
    for (const [args, code, message] of refusals) {
      const result = await daemon.run(args);
      expect([args.join(' '), result.code, result.stderr]).toEqual([
        args.join(' '),
        code,
        expect.stringMatching(message),
      ]);
    }
    expect(readdirSync(join(scene.data, 'volumes')).sort()).toEqual(['v', 'w']);
    expect((await daemon.run(['backup', 'create', 'v', at('d')])).code).toBe(0);
    // A path whose directories are all to be made.
    const deep = at('one/two/three');
    await daemon.ok('backup', 'create', 'v', deep, '--base', at('d'));
    expect((await daemon.run(['backup', 'info', deep])).code).toBe(0);
    await program('rm', ['-r', at('d')]);
    const broken = await daemon.run(['backup', 'info', deep]);
    expect([broken.code, broken.stdout]).toEqual([5, expect.stringMatching(/problem: .*its base/)]);

    await daemon.ok('volume', 'create', 'n', '--size', '16M', '--cipher', 'none');
    await daemon.ok('backup', 'create', 'n', at('n'));
    const unproven = await daemon.run(['backup', 'verify', at('n')]);
    expect([unproven.code, unproven.stdout]).toEqual([
      0,
      expect.stringContaining('NOT authenticated: its cipher'),
    ]);
    expect((await daemon.run(['backup', 'verify', at('n'), '--require-key'])).code).toBe(4);
    expect((await daemon.run(['backup', 'info', at('n')])).stdout).toMatch(/^WARNING: its cipher is none/m);
    const plaintext = await daemon.run(['restore', at('n'), 'm']);
    expect([plaintext.code, plaintext.stderr]).toEqual([1, expect.stringContaining('--plaintext')]);
    const shown = await daemon.ok('restore', at('n'), 'm', '--plaintext');
    expect(shown).toMatch(/^m: restored from .*, none, under no key$/m);
    expect(await daemon.ok('restore', at('b'), 'x')).toMatch(
      /aes-256-gcm under local:default \(local:default#/,
    );
    await daemon.ok('volume', 'stop', 'v');
    expect((await daemon.run(['backup', 'create', 'v', at('e')])).stderr).toMatch(/volume "v" is stopped/);
  });
});
