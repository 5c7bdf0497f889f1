import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { KeyStatus, VolumeInfo } from '../../src/admin/schemas.js';
import { DaemonProcess, sealbd } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { qemuIo } from '../support/nbd-io.js';

const PASSPHRASE = 'correct horse battery staple';
const dataDirectory = () => join(temporaryDirectory(), 'data');
const status = (daemon: DaemonProcess, ...name: string[]) =>
  daemon.json<KeyStatus[]>(['key', 'status', ...name]);
const info = (daemon: DaemonProcess, name: string) => daemon.json<VolumeInfo>(['volume', 'info', name]);

/** A data directory with volume v, whose keyring was moved out of the way. */
async function withoutKey(): Promise<{ data: string; keyring: string; taken: string }> {
  const data = dataDirectory();
  const daemon = await DaemonProcess.start(data, ['--default-volume', 'v:64M']);
  expect((await qemuIo(daemon.uri('v'), 'write -P 0x44 0 1M')).code).toBe(0);
  await daemon.stop();
  const keyring = join(data, 'keyring.json');
  const taken = join(temporaryDirectory(), 'keyring.json');
  renameSync(keyring, taken);
  return { data, keyring, taken };
}

describe('key status', () => {
  it('names every field of the contract, and has no row for a volume without a key', async () => {
    const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'v:64M']);
    await daemon.ok('volume', 'create', 'plain', '--size', '64M', '--cipher', 'none');
    expect(await status(daemon)).toEqual([
      {
        volume: 'v',
        keyUri: 'local:default',
        resolvedKeyId: expect.stringMatching(/^local:default#/),
        state: 'valid',
        reason: null,
        lastCheck: expect.stringMatching(/Z$/),
        nextCheck: expect.stringMatching(/Z$/),
        graceEndsAt: null,
        deks: [
          {
            id: 1,
            state: 'active',
            exposed: true,
            createdAt: expect.stringMatching(/Z$/),
            wrappedBy: expect.stringMatching(/^local:default#.* version 1$/),
            segments: expect.any(Number),
            bytes: expect.any(Number),
          },
        ],
        rotation: null,
      },
    ]);
    expect(await status(daemon, 'plain')).toEqual([]);
    expect((await daemon.run(['key', 'status', 'nobody'])).code).toBe(1);
  });

  it('of a stopped volume comes from a check of its own', async () => {
    const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'v:64M']);
    await daemon.ok('volume', 'stop', 'v');
    expect((await status(daemon, 'v'))[0].state).toBe('valid');
    rmSync(join(daemon.data, 'keyring.json'));
    expect((await status(daemon, 'v'))[0]).toMatchObject({ state: 'invalid', deks: [{ segments: null }] });
  });
});

describe('without its key', () => {
  it('a volume is key-invalid, is not served, and comes back with the key', async () => {
    const { data, keyring, taken } = await withoutKey();
    const daemon = await DaemonProcess.start(data);
    expect(await info(daemon, 'v')).toMatchObject({
      state: 'key-invalid',
      reason: expect.stringContaining('keyring.json'),
    });
    expect((await status(daemon, 'v'))[0]).toMatchObject({
      state: 'invalid',
      reason: expect.stringContaining('missing'),
    });
    expect((await qemuIo(daemon.uri('v'), 'read 0 4k')).code).not.toBe(0);
    expect((await daemon.run(['volume', 'start', 'v'])).code).toBe(4);
    expect(() => statSync(keyring)).toThrow();
    renameSync(taken, keyring);
    await daemon.ok('volume', 'start', 'v');
    expect((await qemuIo(daemon.uri('v'), 'read -P 0x44 0 1M')).output).not.toContain('failed');
  });

  it('key-invalid does not last over a restart, and --require-keys ends with 4', async () => {
    const { data, keyring, taken } = await withoutKey();
    const refused = await sealbd(['serve', '--data', data, '--listen', '127.0.0.1:0', '--require-keys']);
    expect(refused.code).toBe(4);
    expect(refused.stderr).toContain('volume "v"');
    renameSync(taken, keyring);
    const daemon = await DaemonProcess.start(data, ['--require-keys']);
    expect((await info(daemon, 'v')).state).toBe('serving');
  });

  it('another key of the same name is refused, a changed wrap is damaged and exits 5', async () => {
    const { data, keyring, taken } = await withoutKey();
    const first = await DaemonProcess.start(data, ['--default-volume', 'w:64M']);
    expect((await status(first, 'v'))[0]).toMatchObject({
      state: 'invalid',
      reason: expect.stringContaining('another key'),
    });
    await first.stop();
    const parsed = JSON.parse(readFileSync(taken, 'utf8'));
    const other = JSON.parse(readFileSync(keyring, 'utf8'));
    parsed.keys[0].key = other.keys[0].key;
    writeFileSync(keyring, JSON.stringify(parsed));
    const second = await DaemonProcess.start(data);
    expect(await info(second, 'v')).toMatchObject({ state: 'key-invalid' });
    expect((await second.json<KeyStatus[]>(['key', 'status', 'v'], 5))[0].state).toBe('damaged');
    expect((await second.run(['volume', 'start', 'v'])).code).toBe(5);
  });
});

describe('key export-local and import-local', () => {
  it('bring a lost keyring back under the right passphrase only', async () => {
    const directory = temporaryDirectory();
    const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'v:64M']);
    const file = 'key.json';
    const as = (passphrase: string) => ({ cwd: directory, env: { SEALBD_PASSPHRASE: passphrase } });
    expect((await daemon.run(['key', 'export-local', 'default', file], as('short'))).code).toBe(2);
    expect((await daemon.run(['key', 'export-local', 'nobody', file], as(PASSPHRASE))).code).toBe(4);
    expect((await daemon.run(['key', 'export-local', 'default', file], as(PASSPHRASE))).code).toBe(0);
    expect(statSync(join(directory, file)).mode & 0o777).toBe(0o600);
    expect((await daemon.run(['key', 'export-local', 'default', file], as(PASSPHRASE))).code).toBe(1);
    await daemon.ok('volume', 'stop', 'v');
    rmSync(join(daemon.data, 'keyring.json'));
    expect((await daemon.run(['volume', 'start', 'v'])).code).toBe(4);
    expect((await daemon.run(['key', 'import-local', 'default', file], as('wrong passphrase'))).code).toBe(4);
    expect((await daemon.run(['key', 'import-local', 'other', file], as(PASSPHRASE))).code).toBe(1);
    const passphraseFile = join(directory, 'passphrase');
    writeFileSync(passphraseFile, `${PASSPHRASE}\n`);
    const args = ['key', 'import-local', 'v', file, '--passphrase-file', passphraseFile];
    expect((await daemon.run(args, { cwd: directory })).code).toBe(0);
    expect((await daemon.run(args, { cwd: directory })).stdout).toContain('there already');
    await daemon.ok('volume', 'start', 'v');
  });

  it('without a passphrase and a terminal is bad usage', async () => {
    const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'v:64M']);
    const result = await daemon.run(['key', 'export-local', 'default', 'x.json'], {
      cwd: temporaryDirectory(),
    });
    expect(result.code).toBe(2);
    expect(result.stderr).toContain('SEALBD_PASSPHRASE');
  });
});

describe('the log', () => {
  it("never has key material or a passphrase in it, at the debug level, over a volume's life", async () => {
    const directory = temporaryDirectory();
    const config = join(directory, 'c.toml');
    writeFileSync(
      config,
      'admin_token = "a-token-of-some-length"\nadmin = "127.0.0.1:0"\ninsecure = true\n[log]\nlevel = "debug"\n',
    );
    const daemon = await DaemonProcess.start(dataDirectory(), [
      '--config',
      config,
      '--default-volume',
      'v:64M',
    ]);
    const as = (passphrase: string) => ({ cwd: directory, env: { SEALBD_PASSPHRASE: passphrase } });
    await daemon.run(['key', 'export-local', 'default', 'k'], as(PASSPHRASE));
    await daemon.run(['key', 'import-local', 'default', 'k'], as('another wrong passphrase'));
    await daemon.ok('volume', 'stop', 'v');
    await daemon.ok('volume', 'start', 'v');
    const keyring = JSON.parse(readFileSync(join(daemon.data, 'keyring.json'), 'utf8'));
    const superblock = readFileSync(join(daemon.data, 'volumes/v/superblock'));
    await daemon.stop();
    const key = Buffer.from(keyring.keys[0].key, 'base64');
    const secrets = [
      keyring.keys[0].key,
      key.toString('hex'),
      PASSPHRASE,
      'another wrong passphrase',
      'a-token-of-some-length',
      superblock.subarray(200, 230).toString('base64').slice(2, 30),
    ];
    expect(daemon.log().length).toBeGreaterThan(5);
    for (const secret of secrets) expect(daemon.logText).not.toContain(secret);
  });
});
