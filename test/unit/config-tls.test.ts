/** `[tls]`, its flags, and the files that it names. */
import { chmodSync, copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { HANDSHAKE_TIMEOUT_MS } from '../../src/base/limits.js';
import { parseConfig } from '../../src/daemon/config.js';
import { type TlsFlags, tlsConfig } from '../../src/daemon/config-tls.js';
import { parsePskFile } from '../../src/daemon/psk-file.js';
import { DaemonTls } from '../../src/daemon/tls.js';
import { loadCredentials } from '../../src/daemon/tls-files.js';
import { type TestCertificates, testCertificates } from '../support/certificates.js';
import { type LogLine, recordingLogger } from '../support/nbd-test-server.js';

const CWD = '/somewhere';
const HEX = 'ab'.repeat(32);

function resolved(toml: string, flags: TlsFlags = {}) {
  return tlsConfig(flags, CWD, parseConfig(toml, 'f.toml'), '/etc/sealbd');
}

describe('[tls]', () => {
  it('is off where nothing names a source, and required where something does', () => {
    expect(resolved('')).toBeUndefined();
    expect(resolved('[tls]\nmode = "off"\ncertificates = "pki"')).toBeUndefined();
    expect(resolved('[tls]\ncertificates = "pki"')).toEqual({
      required: true,
      minVersion: 'TLSv1.2',
      source: { kind: 'certificates', directory: '/etc/sealbd/pki', verifyClients: true },
    });
    expect(resolved('[tls]\npsk_file = "k.psk"\nmode = "allowed"\nmin_version = "1.3"')).toEqual({
      required: false,
      minVersion: 'TLSv1.3',
      source: { kind: 'psk', path: '/etc/sealbd/k.psk' },
    });
  });

  it("stands behind flags; a source by flag replaces that of the file, paths are the caller's", () => {
    const file = '[tls]\ncertificates = "pki"\nverify_clients = false\nmode = "allowed"';
    expect(resolved(file, { tlsPskFile: 'k.psk' })?.source).toEqual({
      kind: 'psk',
      path: '/somewhere/k.psk',
    });
    expect(resolved(file, { tls: 'required', tlsCertificates: 'x' })).toMatchObject({
      required: true,
      source: { directory: '/somewhere/x', verifyClients: false },
    });
    expect(resolved(file, { tls: 'off' })).toBeUndefined();
  });

  it.each([
    ['[tls]\nmode = "required"', {}, 'TLS is required, but nothing says with what'],
    ['', { tls: 'allowed' }, 'TLS is allowed, but nothing says with what'],
    ['', { tls: 'on' }, '--tls: "on": expected one of off, allowed, required'],
    ['[tls]\ncertificates = "a"\npsk_file = "b"', {}, 'and not both'],
    ['', { tlsCertificates: 'a', tlsPskFile: 'b' }, 'and not both'],
  ])('%j with %j is bad usage', (toml, flags, message) => {
    expect(() => resolved(toml, flags)).toThrow(expect.objectContaining({ code: 'USAGE' }));
    expect(() => resolved(toml, flags)).toThrow(message);
  });
});

describe('a file of pre-shared keys', () => {
  it('has a line NAME:HEXKEY for each; names may have colons, or be in hex', () => {
    const text = `alice:${HEX}\n\nrack:7:b:${HEX.toUpperCase()}\r\n#c3a4:${HEX}\n`;
    expect([...parsePskFile(text, 'k.psk').keys()]).toEqual(['alice', 'rack:7:b', 'ä']);
    expect(parsePskFile(text, 'k.psk').get('alice')).toEqual(Buffer.from(HEX, 'hex'));
  });

  it.each([
    ['', 'k.psk has no keys'],
    ['alice', 'line 1: expected NAME:HEXKEY'],
    [`:${HEX}`, 'line 1: expected NAME:HEXKEY'],
    [`a:${HEX}\nb:${HEX}0`, 'line 2: expected NAME:HEXKEY'],
    [`a:${HEX}\nb:secret`, 'line 2: expected NAME:HEXKEY'],
    [`#xy:${HEX}`, 'line 1: expected NAME:HEXKEY'],
    ['a:abcd', 'line 1: a key of 2 bytes; expected 16 to 64'],
    [`a:${HEX}${HEX}00`, 'line 1: a key of 65 bytes'],
    [`${'n'.repeat(257)}:${HEX}`, 'line 1: a name of more than 256 bytes'],
    [`a:${HEX}\na:${HEX}`, 'line 2: a name that was there before'],
  ])('%j is refused without quoting it', (text, message) => {
    expect(() => parsePskFile(text, 'k.psk')).toThrow(expect.objectContaining({ code: 'USAGE' }));
    expect(() => parsePskFile(text, 'k.psk')).toThrow(message);
    expect(() => parsePskFile(text, 'k.psk')).not.toThrow(/secret|abab/);
  });
});

describe('the files', () => {
  let pki: TestCertificates;
  let directory: string;
  let log: LogLine[];
  const at = (name: string) => join(directory, name);
  const source = () => ({ kind: 'certificates', directory, verifyClients: true }) as const;
  const load = () => loadCredentials(source(), systemClock, recordingLogger(log));

  beforeAll(async () => {
    pki = await testCertificates();
  });

  beforeEach(() => {
    log = [];
    directory = mkdtempSync(join(tmpdir(), 'sealbd-tls-files-'));
    writeFileSync(at('ca-cert.pem'), pki.ca);
    writeFileSync(at('server-cert.pem'), pki.server.cert);
    writeFileSync(at('server-key.pem'), pki.server.key, { mode: 0o600 });
  });

  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  it('are read by their names, a missing revocation list is none', async () => {
    expect(await load()).toEqual({
      kind: 'certificates',
      ...pki.server,
      ca: pki.ca,
      crl: undefined,
      verifyClients: true,
    });
  });

  it('that are missing, or no certificates, are bad usage that names them', async () => {
    rmSync(at('server-key.pem'));
    await expect(load()).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringMatching(/server-key\.pem/),
    });
    writeFileSync(at('server-key.pem'), pki.server.key);
    writeFileSync(at('server-cert.pem'), 'nothing');
    await expect(load()).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringMatching(/server-cert\.pem/),
    });
  });

  it('are not warned of where all is well', async () => {
    // The test's certificates last two days only.
    const clock = { ...systemClock, now: () => Date.now() - 20 * 86_400_000 };
    await loadCredentials(source(), clock, recordingLogger(log));
    expect(log).toEqual([]);
  });

  it('that others can read, and a certificate that ends, are warned of', async () => {
    chmodSync(at('server-key.pem'), 0o644);
    writeFileSync(at('server-cert.pem'), pki.expired.cert);
    await load();
    expect(log.map(({ level, message }) => [level, message])).toEqual([
      ['warn', 'a secret of TLS can be read by other users'],
      ['warn', 'the certificate of the server has expired'],
    ]);
  });

  it('beside the key of their CA are warned of', async () => {
    writeFileSync(at('ca-key.pem'), 'a key');
    const clock = { ...systemClock, now: () => Date.now() - 20 * 86_400_000 };
    await loadCredentials(source(), clock, recordingLogger(log));
    expect(log).toMatchObject([{ level: 'warn', fields: { path: at('ca-key.pem') } }]);
  });

  it('are not read anew without the list of revocations that there was', async () => {
    writeFileSync(at('ca-crl.pem'), await pki.revocations());
    const config = { required: true, minVersion: 'TLSv1.2', source: source() } as const;
    const tls = await DaemonTls.open(config, HANDSHAKE_TIMEOUT_MS, systemClock, recordingLogger(log));
    const contexts: unknown[] = [];
    tls.onReload((context) => contexts.push(context));
    rmSync(at('ca-crl.pem'));
    await tls.reload();
    expect(log.at(-1)).toMatchObject({ level: 'error', fields: { reason: expect.stringMatching(/ca-crl/) } });
    expect(contexts).toEqual([]);
    writeFileSync(at('ca-crl.pem'), await pki.revocations());
    await tls.reload();
    expect(contexts.length).toBe(1);
  });

  it('are read anew on demand; what cannot be used changes nothing, and is reported', async () => {
    const config = { required: true, minVersion: 'TLSv1.2', source: source() } as const;
    const tls = await DaemonTls.open(config, HANDSHAKE_TIMEOUT_MS, systemClock, recordingLogger(log));
    const contexts: unknown[] = [];
    tls.onReload((context) => contexts.push(context.cert));
    const renewed = await pki.issue({ kind: 'server', hosts: ['renewed'] });
    writeFileSync(at('server-cert.pem'), renewed.cert);
    await tls.reload();
    expect(log.at(-1)).toMatchObject({ level: 'error', message: expect.stringMatching(/the old ones stay/) });
    expect(tls.admin?.context.cert).toBe(pki.server.cert);
    writeFileSync(at('server-key.pem'), renewed.key);
    await tls.reload();
    expect(log.at(-1)).toMatchObject({ level: 'info' });
    expect(tls.admin?.context.cert).toBe(renewed.cert);
    expect(contexts).toEqual([renewed.cert]);
    copyFileSync(at('server-key.pem'), at('ca-crl.pem'));
    await tls.reload();
    expect(log.at(-1)).toMatchObject({ level: 'error', fields: { reason: expect.stringMatching(/CRL/i) } });
  });
});
