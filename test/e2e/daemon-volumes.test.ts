import { existsSync, linkSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { VolumeInfo } from '../../src/admin/schemas.js';
import { DaemonProcess } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { program, qemuIo } from '../support/nbd-io.js';

const MIB = 2 ** 20;
const dataDirectory = () => join(temporaryDirectory(), 'data');
const info = (daemon: DaemonProcess, name: string) => daemon.json<VolumeInfo>(['volume', 'info', name]);

describe('volume create', () => {
  it('makes volumes of every cipher that serve at once and after a restart', async () => {
    const data = dataDirectory();
    const first = await DaemonProcess.start(data);
    for (const cipher of ['aes-256-gcm', 'aes-256-ctr', 'none']) {
      await first.ok('volume', 'create', `v-${cipher}`, '--size', '64M', '--cipher', cipher);
      expect((await qemuIo(first.uri(`v-${cipher}`), 'write -P 0x5a 1M 2M', 'flush')).code).toBe(0);
    }
    expect((await first.stop()).code).toBe(0);
    const second = await DaemonProcess.start(data);
    const volumes = await second.json<VolumeInfo[]>(['volume', 'list']);
    expect(volumes.map(({ name, cipher, state, keyUri }) => [name, cipher, state, keyUri])).toEqual([
      ['v-aes-256-ctr', 'aes-256-ctr', 'serving', 'local:default'],
      ['v-aes-256-gcm', 'aes-256-gcm', 'serving', 'local:default'],
      ['v-none', 'none', 'serving', null],
    ]);
    for (const { name, mappedBytes } of volumes) {
      expect(mappedBytes).toBe(2 * MIB);
      expect((await qemuIo(second.uri(name), 'read -P 0x5a 1M 2M', 'read -P 0 3M 1M')).code).toBe(0);
    }
  });

  it('tells everything that the contract names', async () => {
    const daemon = await DaemonProcess.start(dataDirectory());
    await daemon.ok('volume', 'create', 'v', '--size', '64M', '--key', 'local:mine');
    const volume = await info(daemon, 'v');
    expect(volume).toMatchObject({
      name: 'v',
      sizeBytes: 64 * MIB,
      blockSize: 4096,
      cipher: 'aes-256-gcm',
      state: 'serving',
      keyUri: 'local:mine',
      mappedBytes: 0,
    });
    expect(volume.uuid).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    for (const field of ['storedBytes', 'segments'] as const) expect(volume[field]).toBeTypeOf('number');
  });

  it.each([
    [['.x', '--size', '64M'], 2],
    [['a/b', '--size', '64M'], 2],
    [['x'.repeat(65), '--size', '64M'], 2],
    [['x', '--size', '1000'], 2],
    [['x', '--size', '0'], 2],
    [['x', '--size', '65T'], 2],
    [['x', '--size', '64M', '--key', 'nothing:x'], 2],
    [['x', '--size', '64M', '--key', 'local:../x'], 2],
    [['x', '--size', '64M', '--cipher', 'none', '--key', 'local:x'], 2],
    [['taken', '--size', '64M'], 1],
  ])('%j ends with %i and leaves nothing behind', async (args, code) => {
    const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'taken:64M']);
    const result = await daemon.run(['volume', 'create', ...args]);
    expect(result.code, result.stderr).toBe(code);
    expect(readdirSync(join(daemon.data, 'volumes'))).toEqual(['taken']);
    expect(result.stdout).toBe('');
  });

  it('of one name at once makes one volume', async () => {
    const daemon = await DaemonProcess.start(dataDirectory());
    const create = () => daemon.run(['volume', 'create', 'v', '--size', '64M']);
    const codes = (await Promise.all([create(), create(), create()])).map(({ code }) => code);
    expect(codes.sort()).toEqual([0, 1, 1]);
    expect(readdirSync(join(daemon.data, 'volumes'))).toEqual(['v']);
  });
});

describe('volume resize', () => {
  it('grows and shrinks online, lasts over a restart, and what grows back is zeros', async () => {
    const data = dataDirectory();
    const first = await DaemonProcess.start(data, ['--default-volume', 'v:64M']);
    await first.ok('volume', 'resize', 'v', '128M');
    expect((await qemuIo(first.uri('v'), 'write -P 0x7 100M 1M', 'flush')).code).toBe(0);
    expect((await first.run(['volume', 'resize', 'v', '64M'])).code).toBe(2);
    await first.ok('volume', 'resize', 'v', '64M', '--shrink');
    expect((await program('nbdinfo', ['--size', first.uri('v')])).output.trim()).toBe(String(64 * MIB));
    await first.ok('volume', 'resize', 'v', '1G');
    expect((await qemuIo(first.uri('v'), 'read -P 0 100M 1M')).output).not.toContain('failed');
    expect((await first.stop()).code).toBe(0);
    const second = await DaemonProcess.start(data);
    expect((await info(second, 'v')).sizeBytes).toBe(1024 * MIB);
    expect((await qemuIo(second.uri('v'), 'read -P 0 100M 1M')).output).not.toContain('failed');
  });

  it('survives kill -9 right after it answered', async () => {
    const data = dataDirectory();
    const first = await DaemonProcess.start(data, ['--default-volume', 'v:64M']);
    await first.ok('volume', 'resize', 'v', '128M');
    expect((await qemuIo(first.uri('v'), 'write -P 0x7 127M 1M', 'flush')).code).toBe(0);
    await first.signal('SIGKILL');
    const second = await DaemonProcess.start(data);
    expect((await info(second, 'v')).sizeBytes).toBe(128 * MIB);
    expect((await qemuIo(second.uri('v'), 'read -P 0x7 127M 1M')).output).not.toContain('failed');
  });
});

describe('volume stop and start', () => {
  it('stop drops clients, refuses new ones and lasts over a restart; start brings the data back', async () => {
    const data = dataDirectory();
    const first = await DaemonProcess.start(data, ['--default-volume', 'v:64M']);
    expect((await qemuIo(first.uri('v'), 'write -P 0x33 0 4M')).code).toBe(0);
    await first.ok('volume', 'stop', 'v');
    expect((await info(first, 'v')).state).toBe('stopped');
    expect((await qemuIo(first.uri('v'), 'read 0 4k')).code).not.toBe(0);
    expect((await first.stop()).code).toBe(0);
    const second = await DaemonProcess.start(data);
    expect(await info(second, 'v')).toMatchObject({
      state: 'stopped',
      sizeBytes: 64 * MIB,
      mappedBytes: 4 * MIB,
      clients: 0,
    });
    expect((await second.run(['volume', 'resize', 'v', '128M'])).code).toBe(1);
    expect((await second.run(['volume', 'verify', 'v'])).code).toBe(1);
    await second.ok('volume', 'start', 'v');
    expect((await qemuIo(second.uri('v'), 'read -P 0x33 0 4M')).output).not.toContain('failed');
    await second.ok('volume', 'start', 'v');
  });

  it('of an unknown volume ends with 1', async () => {
    const daemon = await DaemonProcess.start(dataDirectory());
    for (const args of [
      ['start', 'x'],
      ['stop', 'x'],
      ['info', 'x'],
      ['verify', 'x'],
      ['delete', 'x', '--yes'],
    ]) {
      const { code, stderr } = await daemon.run(['volume', ...args]);
      expect(code).toBe(1);
      expect(stderr).toContain('no volume "x"');
    }
  });
});

describe('volume delete', () => {
  it('needs --yes, destroys the keys, and the name is free again', async () => {
    const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'v:64M']);
    expect((await daemon.run(['volume', 'delete', 'v'])).code).toBe(2);
    expect((await info(daemon, 'v')).state).toBe('serving');
    // A second name shows what becomes of the bytes.
    const witness = join(temporaryDirectory(), 'superblock');
    linkSync(join(daemon.data, 'volumes/v/superblock'), witness);
    const before = readFileSync(witness);
    await daemon.ok('volume', 'delete', 'v', '--yes');
    expect(before.subarray(0, 7).toString()).toBe('SBDSUP1');
    expect(readFileSync(witness)).toEqual(Buffer.alloc(before.length));
    expect(readdirSync(join(daemon.data, 'volumes'))).toEqual([]);
    expect((await daemon.run(['volume', 'info', 'v'])).code).toBe(1);
    await daemon.ok('volume', 'create', 'v', '--size', '64M');
    expect((await qemuIo(daemon.uri('v'), 'read -P 0 0 64M')).output).not.toContain('failed');
  });
});

describe('a volume that does not open', () => {
  it('does not keep the others from it, and its header backup brings it back', async () => {
    const data = dataDirectory();
    const backup = join(temporaryDirectory(), 'header');
    const first = await DaemonProcess.start(data, ['--default-volume', 'v:64M']);
    await first.ok('volume', 'create', 'w', '--size', '64M');
    expect((await qemuIo(first.uri('v'), 'write -P 0x44 0 1M')).code).toBe(0);
    await first.ok('volume', 'header-backup', 'v', backup);
    expect((await first.run(['volume', 'header-backup', 'v', backup])).code).toBe(1);
    expect((await first.run(['volume', 'header-restore', 'v', backup])).code).toBe(1);
    await first.stop();
    for (const name of ['superblock', 'superblock.bak']) rmSync(join(data, 'volumes/v', name));
    const second = await DaemonProcess.start(data);
    expect(await info(second, 'v')).toMatchObject({
      state: 'failed',
      reason: expect.stringContaining('superblock'),
    });
    expect(await info(second, 'w')).toMatchObject({ state: 'serving' });
    expect((await second.run(['volume', 'start', 'v'])).code).toBe(5);
    await second.ok('volume', 'header-restore', 'v', backup);
    await second.ok('volume', 'start', 'v');
    expect((await qemuIo(second.uri('v'), 'read -P 0x44 0 1M')).output).not.toContain('failed');
  });

  it('because the configuration pins something else is never served', async () => {
    const data = dataDirectory();
    const first = await DaemonProcess.start(data, ['--default-volume', 'v:64M']);
    const { uuid } = await info(first, 'v');
    await first.stop();
    const config = join(temporaryDirectory(), 'sealbd.toml');
    const pins = [
      `uuid = "${uuid?.replace(/.$/, uuid.endsWith('0') ? '1' : '0')}"`,
      'cipher = "none"',
      'key = "local:other"',
    ];
    for (const pin of pins) {
      writeFileSync(config, `[volumes.v]\n${pin}\n`);
      const daemon = await DaemonProcess.start(data, ['--config', config]);
      expect(await info(daemon, 'v')).toMatchObject({
        state: 'failed',
        reason: expect.stringContaining('pins'),
      });
      expect((await daemon.run(['volume', 'start', 'v'])).code).toBe(5);
      expect((await daemon.stop()).code).toBe(0);
    }
    writeFileSync(config, `[volumes.v]\nuuid = "${uuid}"\ncipher = "aes-256-gcm"\nkey = "local:default"\n`);
    const daemon = await DaemonProcess.start(data, ['--config', config]);
    expect((await info(daemon, 'v')).state).toBe('serving');
  });

  it('shows damage in one copy of the superblock by repairing it', async () => {
    const data = dataDirectory();
    const first = await DaemonProcess.start(data, ['--default-volume', 'v:64M']);
    await first.stop();
    const path = join(data, 'volumes/v/superblock');
    const good = readFileSync(path);
    writeFileSync(path, good.subarray(0, 100));
    const second = await DaemonProcess.start(data);
    expect((await info(second, 'v')).state).toBe('serving');
    expect(readFileSync(path)).toEqual(good);
    expect(existsSync(`${path}.tmp`)).toBe(false);
  });
});
