import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { messageOf } from '../../src/base/errors.js';
import { isLocalAddress, nbdUri, parseAddress } from '../../src/daemon/addresses.js';
import { parseConfig, resolveConfig } from '../../src/daemon/config.js';
import { temporaryDirectory } from '../support/key-fixtures.js';

const CWD = '/somewhere';

describe('the configuration', () => {
  it('has safe defaults', () => {
    expect(resolveConfig({}, {}, CWD)).toMatchObject({
      dataDirectory: '/somewhere/sealbd-data',
      listen: [{ kind: 'tcp', host: '127.0.0.1', port: 10_809 }],
      admin: undefined,
      allowUnlockedKeys: false,
      requireKeys: false,
      logLevel: 'info',
      watch: { intervalMs: 600_000, graceMs: 86_400_000, confirmMs: 5000, resume: 'manual' },
      hook: undefined,
    });
  });

  it('takes the watchdog from flags before the file', () => {
    const directory = temporaryDirectory();
    const config = join(directory, 'sealbd.toml');
    const hook = join(directory, 'hook');
    writeFileSync(hook, '#!/bin/sh\n', { mode: 0o755 });
    writeFileSync(
      config,
      '[watchdog]\npoll_interval = "30s"\nunreachable_grace = "1h"\nconfirm_after = "2s"\nresume = "auto"\nhook = "hook"\n',
    );
    expect(resolveConfig({ config }, {}, CWD)).toMatchObject({
      watch: { intervalMs: 30_000, graceMs: 3_600_000, confirmMs: 2000, resume: 'auto' },
      hook: { path: hook, timeoutMs: 10_000 },
    });
    const flags = { config, pollInterval: '1s', unreachableGrace: '0' };
    expect(resolveConfig(flags, {}, CWD).watch).toMatchObject({ intervalMs: 1000, graceMs: 0 });
  });

  it.each([
    [{ pollInterval: '10' }, '--poll-interval: "10" is not a time'],
    [{ pollInterval: '1ms' }, '--poll-interval: "1ms": expected a time from 100ms to 1d'],
    [{ pollInterval: '0' }, '--poll-interval: "0": expected a time from 100ms to 1d'],
    [{ unreachableGrace: 'never' }, '--unreachable-grace: "never" is not a time'],
    [{ unreachableGrace: '400d' }, '--unreachable-grace: "400d": expected a time from 0ms to 366d'],
  ])('%j is bad usage that names the flag, the value and what was expected', (flags, expected) => {
    expect(() => resolveConfig(flags, {}, CWD)).toThrow(expect.objectContaining({ code: 'USAGE' }));
    expect(() => resolveConfig(flags, {}, CWD)).toThrow(expected);
  });

  it('a hook that is no program is bad usage before anything is served', () => {
    const directory = temporaryDirectory();
    const config = join(directory, 'sealbd.toml');
    writeFileSync(join(directory, 'text'), 'not a program');
    for (const hook of ['missing', 'text', '.']) {
      writeFileSync(config, `[watchdog]\nhook = "${hook}"\n`);
      expect(() => resolveConfig({ config }, {}, CWD)).toThrow(
        `watchdog.hook = "${hook}": expected a program`,
      );
    }
  });

  it('takes flags before environment before file before defaults', () => {
    const directory = temporaryDirectory();
    const config = join(directory, 'sealbd.toml');
    writeFileSync(config, 'data = "from-file"\nlisten = ["127.0.0.1:1", "unix:nbd.sock"]\n');
    const environment = { SEALBD_DATA: 'from-environment' };
    expect(resolveConfig({ config, data: 'flag' }, environment, CWD).dataDirectory).toBe('/somewhere/flag');
    expect(resolveConfig({ config }, environment, CWD).dataDirectory).toBe('/somewhere/from-environment');
    const fromFile = resolveConfig({ config }, {}, CWD);
    expect(fromFile.dataDirectory).toBe(join(directory, 'from-file'));
    expect(fromFile.listen[1]).toEqual({ kind: 'unix', path: join(directory, 'nbd.sock') });
    expect(resolveConfig({ config, listen: ['[::1]:7'] }, {}, CWD).listen).toEqual([
      { kind: 'tcp', host: '::1', port: 7 },
    ]);
  });

  it('reads pins and tuning', () => {
    const directory = temporaryDirectory();
    const config = join(directory, 'sealbd.toml');
    const uuid = '3B241101-e2bb-4255-8caf-4136c566a962';
    const text = `[tuning]\npool_threads = 3\nbuffer_age = "20ms"\ncheckpoint_after = "64M"\n
      [volumes.db]\nuuid = "${uuid}"\ncipher = "aes-256-gcm"\nkey = "local:db"\n[volumes.scratch]\ncipher = "none"\n`;
    writeFileSync(config, text);
    const { pins, tuning } = resolveConfig({ config }, {}, CWD);
    expect(pins.get('db')).toEqual({ uuid: uuid.toLowerCase(), suite: 2, keyUris: ['local:db'] });
    expect(pins.get('scratch')).toMatchObject({ suite: 0 });
    expect(tuning).toEqual({ pool_threads: 3, buffer_age: 20, checkpoint_after: 64 * 2 ** 20 });
  });

  it.each([
    ['data = 5', 'data = 5'],
    ['lisen = "127.0.0.1:1"', 'unknown key lisen'],
    ['[tuning]\nthreads = 1', 'unknown key tuning.threads'],
    ['[tuning]\npool_threads = 0', 'tuning.pool_threads = 0'],
    ['[tuning]\nbuffer_age = "fast"', 'tuning.buffer_age = "fast": expected a time'],
    ['[tuning]\npool_read_from = "1Q"', 'tuning.pool_read_from = "1Q": expected a size'],
    ['[volumes."a/b"]\ncipher = "none"', 'expected a volume name'],
    ['[volumes.v]\ncipher = "rot13"', 'volumes.v.cipher = "rot13"'],
    ['[volumes.v]\nuuid = "1"', 'volumes.v.uuid = "1"'],
    ['[volumes.v]\nkey = "nothing"', 'volumes.v.key = "nothing": expected a key URI'],
    ['[volumes.v]\nkey = ["local:a", "nothing"]', 'volumes.v.key.1 = "nothing": expected a key URI'],
    ['[volumes.v]\nkey = []', 'volumes.v.key = []'],
    ['[watchdog]\npoll_interval = "1ms"', 'watchdog.poll_interval = "1ms": expected a time from 100ms'],
    ['[watchdog]\npoll_interval = 10', 'watchdog.poll_interval = 10'],
    ['[watchdog]\nconfirm_after = "1h"', 'watchdog.confirm_after = "1h": expected a time from 0ms to 1m'],
    ['[watchdog]\nresume = "maybe"', 'watchdog.resume = "maybe"'],
    ['[watchdog]\npoll = "1s"', 'unknown key watchdog.poll'],
    ['[tls]\nmode = "maybe"', 'tls.mode = "maybe"'],
    ['[tls]\nmin_version = "1.1"', 'tls.min_version = "1.1"'],
    ['[tls]\nkey = "x"', 'unknown key tls.key'],
    ['[limits]\nconnections = 0', 'limits.connections = 0'],
    ['[limits]\nconnections = 5000', 'limits.connections = 5000'],
    ['[limits]\nsend_stall = "9s"', 'limits.send_stall = "9s": expected a time from 10s'],
    ['[limits]\nhandshake_timeout = "1ms"', 'limits.handshake_timeout = "1ms": expected a time from 1s'],
    [
      '[limits]\nbytes_in_flight_total = "64M"',
      'limits.bytes_in_flight_total = "64M": expected a size from 208M',
    ],
    ['[limits]\nanything = 1', 'unknown key limits.anything'],
    ['[log]\nlevel = "loud"', 'log.level = "loud"'],
    ['x =', 'line 1'],
  ])('%j is refused with the key, the value and what was expected', (text, expected) => {
    expect(() => parseConfig(text, 'f.toml')).toThrow(expect.objectContaining({ code: 'USAGE' }));
    expect(() => parseConfig(text, 'f.toml')).toThrow(expected);
  });

  it('does not quote a token back', () => {
    let message = '';
    try {
      parseConfig('admin_token = "too short"', 'f.toml');
    } catch (error) {
      message = messageOf(error);
    }
    expect(message).toContain('admin_token');
    expect(message).not.toContain('too short');
  });

  it('refuses an address that other machines can reach, unless TLS is required there or it may be insecure', () => {
    const addresses = ['0.0.0.0:1', '[::]:1', '10.0.0.1:1', 'example.org:1'];
    for (const address of addresses) {
      expect(() => resolveConfig({ listen: [address] }, {}, CWD)).toThrow(/--insecure/);
      expect(resolveConfig({ listen: [address], insecure: true }, {}, CWD).listen).toHaveLength(1);
    }
    const psk = { listen: ['0.0.0.0:1'], tlsPskFile: 'keys.psk' };
    expect(resolveConfig(psk, {}, CWD).tls).toMatchObject({ required: true });
    for (const tls of ['allowed', 'off']) {
      expect(() => resolveConfig({ ...psk, tls }, {}, CWD)).toThrow(/would not be encrypted.*--insecure/);
    }
  });

  it('asks for a token and TLS with certificates on an admin TCP address, loopback included', () => {
    const token = { SEALBD_ADMIN_TOKEN: 'a-token-of-some-length' };
    const admin = '127.0.0.1:1';
    for (const tls of [{}, { tlsPskFile: 'keys.psk' }, { tlsCertificates: 'pki', tls: 'off' }]) {
      expect(() => resolveConfig({ admin, ...tls }, token, CWD)).toThrow(/needs TLS.*--insecure/);
    }
    expect(resolveConfig({ admin, tlsCertificates: 'pki' }, token, CWD).admin).toBeDefined();
    expect(() => resolveConfig({ admin, tlsCertificates: 'pki' }, {}, CWD)).toThrow(/SEALBD_ADMIN_TOKEN/);
    expect(() => resolveConfig({ admin, insecure: true }, {}, CWD)).toThrow(/SEALBD_ADMIN_TOKEN/);
    expect(() => resolveConfig({ admin: '127.0.0.1:1' }, { SEALBD_ADMIN_TOKEN: 'short' }, CWD)).toThrow(/16/);
    const environment = { SEALBD_ADMIN_TOKEN: 'a-token-of-some-length' };
    expect(resolveConfig({ admin, insecure: true }, environment, CWD).adminToken).toBe(
      'a-token-of-some-length',
    );
    expect(resolveConfig({ admin: 'unix:a.sock' }, {}, CWD).admin).toEqual({
      kind: 'unix',
      path: '/somewhere/a.sock',
    });
  });

  it.each(['default', 'default:', ':10G', '.x:10G', 'a:b'])('--default-volume %s is bad usage', (text) => {
    expect(() => resolveConfig({ defaultVolume: text }, {}, CWD)).toThrow(/--default-volume/);
  });

  it('a missing file is bad usage that names it', () => {
    expect(() => resolveConfig({ config: 'none.toml' }, {}, CWD)).toThrow('/somewhere/none.toml');
  });
});

describe('addresses', () => {
  it.each(['', 'x', '127.0.0.1', '127.0.0.1:', '127.0.0.1:99999', '::1:80', '[x]:80', 'unix:', 'a:b:1'])(
    '"%s" is bad usage that names the flag',
    (text) => {
      expect(() => parseAddress(text, '--listen', CWD)).toThrow(`--listen: "${text}"`);
    },
  );

  it('are local only where no other machine can connect', () => {
    const local = (text: string) => isLocalAddress(parseAddress(text, '--listen', CWD));
    expect(['127.0.0.1:1', '127.9.9.9:1', '[::1]:1', 'localhost:1', 'unix:x'].every(local)).toBe(true);
    expect(['0.0.0.0:1', '[::]:1', '128.0.0.1:1', '127.0.0.1.example.org:1'].some(local)).toBe(false);
  });

  it('become NBD URIs', () => {
    expect(nbdUri('127.0.0.1:10809', 'default')).toBe('nbd://127.0.0.1:10809/default');
    expect(nbdUri('[::1]:1', 'a')).toBe('nbd://[::1]:1/a');
    expect(nbdUri('unix:/run/a b.sock', 'a')).toBe('nbd+unix:///a?socket=/run/a%20b.sock');
    expect(nbdUri('[::1]:1', 'a', true)).toBe('nbds://[::1]:1/a');
    expect(nbdUri('unix:/s', 'a', true)).toBe('nbds+unix:///a?socket=/s');
  });
});
