/** `sealbd tls init` and `tls client`: what they make holds up to OpenSSL, and nothing is replaced. */
import { X509Certificate } from 'node:crypto';
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { tlsClient } from '../../src/cli/commands/tls-client.js';
import { tlsInit } from '../../src/cli/commands/tls-init.js';
import { runProgram } from '../support/programs.js';

let directory: string;
const at = (...names: string[]) => join(directory, ...names);
const certificate = (name: string) => new X509Certificate(readFileSync(at(name)));

beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), 'sealbd-tls-')), 'pki');
});

afterEach(() => {
  rmSync(join(directory, '..'), { recursive: true, force: true });
});

function init(options: { host?: string[]; client?: string; days?: string } = {}): Promise<void> {
  return tlsInit(directory, { host: [], client: 'alice', days: '30', ...options });
}

async function verifies(
  file: string,
  purpose: 'sslserver' | 'sslclient',
  ca = 'ca-cert.pem',
): Promise<boolean> {
  const args = ['verify', '-x509_strict', '-purpose', purpose, '-CAfile', at(ca), at(file)];
  return (await runProgram('openssl', args)).code === 0;
}

describe('tls init', () => {
  it('makes the files that libnbd and QEMU look for, for their owner alone', async () => {
    await init();
    expect(readdirSync(directory).sort()).toEqual(
      ['ca-cert', 'ca-key', 'client-cert', 'client-key', 'server-cert', 'server-key'].map((n) => `${n}.pem`),
    );
    for (const name of readdirSync(directory)) expect(statSync(at(name)).mode & 0o777).toBe(0o600);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
  });

  it('makes certificates that are good for their one purpose', async () => {
    await init();
    expect(await verifies('server-cert.pem', 'sslserver')).toBe(true);
    expect(await verifies('client-cert.pem', 'sslclient')).toBe(true);
    expect(await verifies('server-cert.pem', 'sslclient')).toBe(false);
    expect(await verifies('client-cert.pem', 'sslserver')).toBe(false);
    expect(certificate('ca-cert.pem').ca).toBe(true);
    expect(certificate('client-cert.pem').ca).toBe(false);
  });

  it('names the server by every host, loopback included, and the client by its CN', async () => {
    await init({ host: ['nbd.example.org', '10.0.0.7', 'fd00::7'] });
    const server = certificate('server-cert.pem');
    expect(server.subject).toBe('CN=nbd.example.org');
    for (const host of ['nbd.example.org', 'localhost']) expect(server.checkHost(host)).toBe(host);
    for (const ip of ['10.0.0.7', 'fd00::7', '127.0.0.1', '::1']) expect(server.checkIP(ip)).toBe(ip);
    expect(server.checkHost('example.org')).toBeUndefined();
    expect(certificate('client-cert.pem').subject).toBe('CN=alice');
  });

  it('ends in time: the CA in ten years, the others as told', async () => {
    await init({ days: '3' });
    const days = (name: string) =>
      Math.round((Date.parse(certificate(name).validTo) - Date.now()) / 86_400_000);
    expect(['ca-cert.pem', 'server-cert.pem', 'client-cert.pem'].map(days)).toEqual([3650, 3, 3]);
  });

  it('replaces nothing; what was removed is made anew by the same CA', async () => {
    await init();
    const before = readdirSync(directory).map((name) => readFileSync(at(name), 'utf8'));
    await init({ client: 'bob' });
    expect(readdirSync(directory).map((name) => readFileSync(at(name), 'utf8'))).toEqual(before);
    const { serialNumber } = certificate('server-cert.pem');
    rmSync(at('server-cert.pem'));
    rmSync(at('server-key.pem'));
    await init();
    expect(certificate('server-cert.pem').serialNumber).not.toBe(serialNumber);
    expect(await verifies('server-cert.pem', 'sslserver')).toBe(true);
  });

  it('goes on where a crash cut it off, at any step, and leaves nothing behind', async () => {
    await init();
    const all = readdirSync(directory).sort();
    const pair = ['server-key.pem', 'server-cert.pem'].map((name) => at(name));
    const [key, cert] = pair;
    const waiting = (path: string) => linkSync(path, `${path}.new`);
    // The key has its name, the certificate waits for its own.
    for (const path of pair) waiting(path);
    const { serialNumber } = certificate('server-cert.pem');
    rmSync(cert);
    await init();
    expect([readdirSync(directory).sort(), certificate('server-cert.pem').serialNumber]).toEqual([
      all,
      serialNumber,
    ]);
    // Both have theirs.
    waiting(key);
    await init();
    expect(readdirSync(directory).sort()).toEqual(all);
    // Neither, and one of them only half written.
    for (const path of pair) rmSync(path);
    writeFileSync(`${key}.new`, 'half');
    await init();
    expect(readdirSync(directory).sort()).toEqual(all);
    expect(await verifies('server-cert.pem', 'sslserver')).toBe(true);
  });

  it('writes through no link, and replaces no key that is there alone', async () => {
    mkdirSync(directory);
    const elsewhere = join(directory, '..', 'elsewhere');
    symlinkSync(elsewhere, at('ca-key.pem'));
    await expect(init()).rejects.toThrow('exists already');
    expect(existsSync(elsewhere)).toBe(false);
    rmSync(at('ca-key.pem'));
    symlinkSync(elsewhere, at('ca-key.pem.new'));
    await init();
    expect(existsSync(elsewhere)).toBe(false);
    rmSync(at('client-cert.pem'));
    const kept = readFileSync(at('client-key.pem'), 'utf8');
    await expect(init()).rejects.toMatchObject({ code: 'CONFLICT' });
    expect(readFileSync(at('client-key.pem'), 'utf8')).toBe(kept);
  });

  it('takes no CA whose key is not its own, or is no key', async () => {
    await init();
    for (const key of [readFileSync(at('server-key.pem'), 'utf8'), 'no key']) {
      writeFileSync(at('ca-key.pem'), key);
      rmSync(at('client-cert.pem'), { force: true });
      rmSync(at('client-key.pem'), { force: true });
      await expect(init()).rejects.toMatchObject({ code: 'USAGE' });
      expect(existsSync(at('client-cert.pem'))).toBe(false);
    }
  });

  it.each([
    [{ host: ['a b'] }, '--host: "a b"'],
    [{ host: ['-x.org'] }, '--host: "-x.org"'],
    [{ client: '' }, 'client name: ""'],
    [{ client: 'ä' }, 'client name: "ä"'],
    [{ days: '0' }, '--days: "0"'],
    [{ days: '1.5' }, '--days: "1.5"'],
  ])('%j is bad usage, and makes nothing', async (options, message) => {
    await expect(init(options)).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringContaining(message),
    });
    expect(existsSync(directory)).toBe(false);
  });
});

describe('tls client', () => {
  it('signs another client, into a directory that is all a client needs', async () => {
    await init();
    // What would have to be escaped in a name that is written as text.
    await tlsClient(directory, 'bob, #1+2=3', at('bob'), { days: '30' });
    expect(readdirSync(at('bob')).sort()).toEqual(['ca-cert.pem', 'client-cert.pem', 'client-key.pem']);
    expect(await verifies('bob/client-cert.pem', 'sslclient', 'bob/ca-cert.pem')).toBe(true);
    expect(new X509Certificate(readFileSync(at('bob', 'client-cert.pem'))).toLegacyObject().subject).toEqual({
      CN: 'bob, #1+2=3',
    });
    await expect(tlsClient(directory, 'eve', at('bob'), { days: '30' })).rejects.toMatchObject({
      code: 'CONFLICT',
    });
  });
});
