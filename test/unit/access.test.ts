/** `[[access]]`: what the rules mean, and what a client sees of the rest. */
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { SealbdError } from '../../src/base/errors.js';
import { AccessPolicy, AddressSet, ExportPattern } from '../../src/daemon/access.js';
import { ClientExports } from '../../src/daemon/client-exports.js';
import { parseConfig } from '../../src/daemon/config.js';
import { accessRules } from '../../src/daemon/config-access.js';
import { tlsConfig } from '../../src/daemon/config-tls.js';
import type { NbdClient } from '../../src/nbd/exports.js';
import type { PeerIdentity } from '../../src/nbd/peer-identity.js';
import { Command, Errno, Feature, Option, Rep } from '../../src/nbd/wire/constants.js';
import { encodeInfoRequest, encodeMetaRequest } from '../../src/nbd/wire/option.js';
import { exportsOf, MemoryDevice } from '../support/memory-device.js';
import { RawClient } from '../support/nbd-raw-client.js';
import {
  type LogLine,
  recordingLogger,
  startTestServer,
  type TestServer,
} from '../support/nbd-test-server.js';

const CERTIFICATES = '[tls]\ncertificates = "pki"\n';
const PSK = '[tls]\npsk_file = "keys.psk"\n';

function rules(toml: string) {
  const file = parseConfig(toml, 'f.toml');
  return accessRules(file.access, tlsConfig({}, '/', file, '/'));
}

function policy(toml: string): AccessPolicy {
  return new AccessPolicy(rules(toml)!);
}

function client(identity?: PeerIdentity | Record<string, string[]>, peer = '10.1.2.3:4000'): NbdClient {
  if (identity === undefined || typeof identity.kind === 'string') {
    return { peer, identity: identity as PeerIdentity | undefined };
  }
  const subject = new Map(Object.entries(identity as Record<string, string[]>));
  return { peer, identity: { kind: 'certificate', subject } };
}

const psk = (name: string): PeerIdentity => ({ kind: 'psk', name });

describe('access rules', () => {
  it('without any, everything is open; with one, what it does not allow is denied', () => {
    expect(rules('')).toBeUndefined();
    const one = policy('[[access]]\nvolumes = "db"\nmode = "read-only"');
    expect(one.modeFor(client(), 'db')).toBe('read-only');
    expect(one.modeFor(client(), 'other')).toBeUndefined();
  });

  it('by subject: every attribute named, once, and equal', () => {
    const rule = 'subject = { CN = "db1", O = "Example" }\nvolumes = "db"\nmode = "read-write"';
    const access = policy(`${CERTIFICATES}[[access]]\n${rule}`);
    const mode = (subject: Record<string, string[]>) => access.modeFor(client(subject), 'db');
    expect(mode({ CN: ['db1'], O: ['Example'] })).toBe('read-write');
    expect(mode({ CN: ['db1'], O: ['Example'], OU: ['x'] })).toBe('read-write');
    for (const subject of [
      { CN: ['db1'] },
      { CN: ['db2'], O: ['Example'] },
      { CN: ['DB1'], O: ['Example'] },
      { CN: ['db1', 'db2'], O: ['Example'] },
      { CN: ['db1,O=Example'] },
      { CN: ['db1'], O: [] },
    ]) {
      expect(mode(subject as Record<string, string[]>)).toBeUndefined();
    }
    expect(access.modeFor(client(), 'db')).toBeUndefined();
    expect(access.modeFor(client(psk('db1')), 'db')).toBeUndefined();
  });

  it('by the name of a pre-shared key', () => {
    const access = policy(`${PSK}[[access]]\npsk = ["alice", "bob"]\nvolumes = "db"\nmode = "read-write"`);
    expect(access.modeFor(client(psk('bob')), 'db')).toBe('read-write');
    expect(access.modeFor(client(psk('carol')), 'db')).toBeUndefined();
    expect(access.modeFor(client({ CN: ['alice'] }), 'db')).toBeUndefined();
  });

  it('by address, and by both where both are named', () => {
    const where = 'address = ["10.0.0.0/8", "fd00::/16", "192.168.1.7", "unix"]';
    const anybody = policy(`[[access]]\n${where}\nvolumes = "db"\nmode = "read-write"`);
    const from = (peer: string) => anybody.modeFor(client(undefined, peer), 'db') !== undefined;
    for (const peer of ['10.255.0.1:1', '[fd00:0:1::1]:80', '192.168.1.7:9', 'unix:/run/nbd.sock']) {
      expect(from(peer)).toBe(true);
    }
    for (const peer of ['11.0.0.1:1', '[fd01::1]:80', '192.168.1.8:9', '']) expect(from(peer)).toBe(false);
    const both = policy(
      `${PSK}[[access]]\npsk = "a"\naddress = "10.0.0.0/8"\nvolumes = "*"\nmode = "read-only"`,
    );
    expect(both.modeFor(client(psk('a')), 'db')).toBe('read-only');
    expect(both.modeFor(client(psk('a'), '11.0.0.1:1'), 'db')).toBeUndefined();
    expect(both.modeFor(client(psk('b')), 'db')).toBeUndefined();
  });

  it('of several that allow it the widest counts, in whatever order', () => {
    const read = '[[access]]\nvolumes = "*"\nmode = "read-only"\n';
    const write = '[[access]]\naddress = "10.1.2.3"\nvolumes = "db"\nmode = "read-write"\n';
    for (const text of [read + write, write + read]) {
      expect(policy(text).modeFor(client(), 'db')).toBe('read-write');
      expect(policy(text).modeFor(client(), 'other')).toBe('read-only');
    }
  });

  it('a pattern with * covers no snapshot unless it says so', () => {
    const matches = (pattern: string, name: string) => new ExportPattern(pattern).matches(name);
    expect(
      matches('*', 'db') && matches('db*', 'db-1') && matches('a*z', 'az') && matches('*.x', 'a.x'),
    ).toBe(true);
    expect(matches('*', 'db@monday') || matches('db', 'db@monday') || matches('db', 'xdb')).toBe(false);
    expect(matches('.x', 'ax') || matches('d.b', 'dxb') || matches('db*', 'adb')).toBe(false);
    expect(matches('db@*', 'db@monday') && matches('*@*', 'db@monday')).toBe(true);
    expect(matches('db@*', 'db') || matches('db@mon', 'db@monday')).toBe(false);
  });

  it('a pattern matches as a slow reading of it does', () => {
    const letters = fc.constantFrom('a', 'b', '.', '*', '@');
    const text = (max: number) => fc.array(letters, { maxLength: max }).map((parts) => parts.join(''));
    const slow = (pattern: string, name: string): boolean => {
      if (pattern === '') return name === '';
      if (pattern[0] !== '*') return pattern[0] === name[0] && slow(pattern.slice(1), name.slice(1));
      return slow(pattern.slice(1), name) || (name !== '' && name[0] !== '@' && slow(pattern, name.slice(1)));
    };
    const property = fc.property(text(6), text(8), (pattern, raw) => {
      const name = raw.replaceAll('*', 'a');
      expect(new ExportPattern(pattern).matches(name)).toBe(slow(pattern, name));
    });
    fc.assert(property, { numRuns: 2000 });
  });

  it('a name that no export can have is denied before any rule, at once however many * there are', () => {
    const access = policy('[[access]]\nvolumes = ["*", "*@*"]\nmode = "read-only"');
    const longest = `${'v'.repeat(64)}@${'s'.repeat(64)}`;
    expect(access.modeFor(client(), longest)).toBe('read-only');
    for (const name of [
      `v${longest}`,
      `${longest}s`,
      '',
      '@',
      'a@',
      '@b',
      'a@b@c',
      '-a',
      'a@-b',
      'a/b',
      'a\n',
    ]) {
      expect(access.modeFor(client(), name)).toBeUndefined();
    }
    const many = new ExportPattern('*-*-*-*-*-*-*-data');
    const started = performance.now();
    for (let i = 0; i < 100; i++) expect(many.matches('-'.repeat(2000))).toBe(false);
    // A matcher that goes back to every * is not done within a year.
    expect(performance.now() - started).toBeLessThan(10_000);
  });

  it('an empty list is bad usage, not leave for everybody', () => {
    expect(() => rules('access = []')).toThrow(expect.objectContaining({ code: 'USAGE' }));
    expect(() => rules('access = []')).toThrow(/access.*expected at least one rule/);
  });

  it.each([
    '10.0.0.0/33',
    'fd00::/129',
    '10.0.0',
    'example.org',
    '',
    '/8',
    '10.0.0.0/',
    '1.2.3.4/8/8',
    '::1%eth0',
  ])('"%s" is no address', (text) => {
    expect(new AddressSet().add(text)).toBe(false);
  });

  it('of one family hold nobody of the other, and IPv4 is IPv4 where the socket speaks IPv6', () => {
    const of = (text: string) => {
      const set = new AddressSet();
      expect(set.add(text)).toBe(true);
      return ['192.0.2.7:1', '[::ffff:192.0.2.7]:1', '[2001:db8::1]:1'].map((peer) => set.has(peer));
    };
    expect(of('::/0')).toEqual([false, false, true]);
    expect(of('0.0.0.0/0')).toEqual([true, true, false]);
    expect(of('192.0.2.7')).toEqual([true, true, false]);
  });

  it.each([
    ['volumes = "db"', 'access.0.mode'],
    ['mode = "read-only"', 'access.0.volumes'],
    ['volumes = []\nmode = "read-only"', 'access.0.volumes'],
    ['volumes = "a/b"\nmode = "read-only"', 'access.0.volumes = "a/b"'],
    ['volumes = "db"\nmode = "rw"', 'access.0.mode = "rw"'],
    ['volumes = "db"\nmode = "read-only"\nuser = "x"', 'unknown key access.0.user'],
    ['volumes = "db"\nmode = "read-only"\nsubject = {}', 'access.0.subject'],
    ['volumes = "db"\nmode = "read-only"\nsubject = { cn = "x" }', 'access.0.subject'],
    ['volumes = "db"\nmode = "read-only"\naddress = "10.0.0.0/40"', 'access.0.address = "10.0.0.0/40"'],
    ['volumes = "db"\nmode = "read-only"\npsk = "x"', 'access.0.psk: no client has a pre-shared key'],
    [
      'volumes = "db"\nmode = "read-only"\nsubject = { CN = "x" }',
      'access.0.subject: no client has a certificate',
    ],
  ])('%j is bad usage', (text, message) => {
    expect(() => rules(`[[access]]\n${text}`)).toThrow(expect.objectContaining({ code: 'USAGE' }));
    expect(() => rules(`[[access]]\n${text}`)).toThrow(message);
  });

  it('name no certificate where none is asked for', () => {
    const rule = '[[access]]\nvolumes = "db"\nmode = "read-only"\nsubject = { CN = "x" }';
    expect(() => rules(`${CERTIFICATES}verify_clients = false\n${rule}`)).toThrow(/verify_clients/);
    expect(() => rules(`${PSK}${rule}`)).toThrow(/no client has a certificate/);
  });
});

describe('a client under rules', () => {
  const disks = ['default', 'shared', 'secret'].map((name) => new MemoryDevice({ name, sizeBytes: 65_536 }));
  let test: TestServer | undefined;
  let log: LogLine[] = [];
  let connection: RawClient;

  afterEach(async () => {
    await connection.close();
    await test?.stop();
  });

  async function start(toml: string, stopped: readonly string[] = []): Promise<void> {
    const access = policy(toml);
    const all = exportsOf(...disks);
    const lookup = (name: string) =>
      stopped.includes(name) ? new SealbdError('ESHUTDOWN', `volume "${name}" is stopped`) : all.lookup(name);
    log = [];
    test = await startTestServer([], {
      exportsFor: (who) => new ClientExports({ ...all, lookup }, access, who, recordingLogger(log)),
    });
    connection = await RawClient.connect(test.address);
    await connection.greet();
    await connection.option(Option.STRUCTURED_REPLY);
  }

  const two =
    '[[access]]\nvolumes = "shared"\nmode = "read-only"\n[[access]]\nvolumes = "def*"\nmode = "read-write"\n';
  const replies = async (option: number, name: string) =>
    (await connection.option(option, encodeInfoRequest({ name, infos: [] }))).map(({ reply, data }) => [
      reply,
      reply === Rep.ACK || reply === Rep.INFO ? '' : data.toString(),
    ]);

  it('finds in the list what it may open', async () => {
    await start(two);
    const names = (await connection.option(Option.LIST))
      .filter(({ reply }) => reply === Rep.SERVER)
      .map(({ data }) => data.subarray(4, 4 + data.readUInt32BE()).toString());
    expect(names).toEqual(['default', 'shared']);
  });

  it('gets for the others the very answer that a name without an export gets, stopped ones too', async () => {
    await start(two, ['secret']);
    for (const option of [Option.INFO, Option.GO]) {
      expect(await replies(option, 'secret')).toEqual(await replies(option, 'nothing'));
    }
    const meta = async (name: string) =>
      (
        await connection.option(
          Option.SET_META_CONTEXT,
          encodeMetaRequest({ name, queries: ['base:allocation'] }),
        )
      ).map(({ reply, data }) => [reply, data.toString()]);
    expect(await meta('secret')).toEqual(await meta('nothing'));
    expect((await replies(Option.INFO, 'secret'))[0][0]).toBe(Rep.ERR_UNKNOWN);
    expect(log.map(({ fields }) => (fields as { export: string }).export)).toEqual(['secret']);
  });

  it('has a default export only where it may open that', async () => {
    await start(two);
    expect((await replies(Option.INFO, '')).at(-1)?.[0]).toBe(Rep.ACK);
    await connection.close();
    await test?.stop();
    await start('[[access]]\nvolumes = "shared"\nmode = "read-write"');
    expect((await replies(Option.INFO, ''))[0][0]).toBe(Rep.ERR_UNKNOWN);
  });

  it('that may only read is told so, reads, and changes nothing', async () => {
    await start(two);
    const info = await connection.option(Option.GO, encodeInfoRequest({ name: 'shared', infos: [] }));
    connection.structured = true;
    const features = info[0].data.readUInt16BE(10);
    expect(features & Feature.READ_ONLY).not.toBe(0);
    expect(features & (Feature.TRIM | Feature.WRITE_ZEROES)).toBe(0);
    expect((await connection.readAt(0, 4096)).error).toBe(Errno.OK);
    expect(await connection.writeAt(0, Buffer.alloc(4096, 1))).toBe(Errno.EPERM);
    for (const command of [Command.TRIM, Command.WRITE_ZEROES]) {
      expect((await connection.call(command, 0, 4096)).error).toBe(Errno.EPERM);
    }
    expect((await connection.call(Command.FLUSH, 0, 0)).error).toBe(Errno.OK);
    expect((await connection.readAt(0, 4096)).data.equals(Buffer.alloc(4096))).toBe(true);
  });
});
