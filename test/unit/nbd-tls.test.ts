/** NBD under TLS, by Node's own client: who gets in, what is carried, and what nobody can do to the server. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import type tls from 'node:tls';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  HANDSHAKE_TIMEOUT_MS,
  SEND_STALL_MS,
  TLS_BYTES_MAX,
  TLS_RECORD_COST_BYTES,
} from '../../src/base/limits.js';
import type { TlsUpgrade } from '../../src/nbd/connection-host.js';
import { describeIdentity } from '../../src/nbd/peer-identity.js';
import { openSockets } from '../../src/nbd/poller.js';
import type { NbdServerOptions } from '../../src/nbd/server.js';
import { type TlsCredentials, TlsServer, type TlsServerOptions } from '../../src/nbd/tls-server.js';
import type { Transport } from '../../src/nbd/transport.js';
import { Command, Errno, Option, Rep } from '../../src/nbd/wire/constants.js';
import { encodeInfoRequest, encodeOption } from '../../src/nbd/wire/option.js';
import { type TestCertificates, testCertificates } from '../support/certificates.js';
import { MemoryDevice } from '../support/memory-device.js';
import { RawClient } from '../support/nbd-raw-client.js';
import {
  eventually,
  type LogLine,
  recordingLogger,
  startTestServer,
  type TestServer,
} from '../support/nbd-test-server.js';
import { SeededRandom, testSeed } from '../support/seeded-random.js';
import { SkippingClock } from '../support/skipping-clock.js';

const MiB = 1024 * 1024;
const go = encodeInfoRequest({ name: 'disk', infos: [] });
const EMPTY = Buffer.alloc(0);

let pki: TestCertificates;
let disk: MemoryDevice;
let clock: SkippingClock;
let test: TestServer;
let tlsLog: LogLine[];
let tlsServer: TlsServer;
const clients: RawClient[] = [];
const transports: Transport[] = [];

beforeAll(async () => {
  pki = await testCertificates();
});

beforeEach(() => {
  clock = new SkippingClock();
  tlsLog = [];
  transports.length = 0;
  disk = new MemoryDevice({ name: 'disk' });
});

afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()));
  await test.stop();
  expect(openSockets()).toBe(0);
});

function certificates(verifyClients = true): TlsCredentials {
  return { kind: 'certificates', ...pki.server, ca: pki.ca, crl: undefined, verifyClients };
}

async function start(
  credentials: TlsCredentials,
  options: Partial<TlsServerOptions> = {},
  server: Partial<NbdServerOptions> = {},
): Promise<void> {
  const log = recordingLogger(tlsLog);
  tlsServer = new TlsServer({
    required: true,
    minVersion: 'TLSv1.2',
    credentials,
    handshakeMs: HANDSHAKE_TIMEOUT_MS,
    log,
    ...options,
  });
  const { required } = tlsServer;
  const upgrade: TlsUpgrade['upgrade'] = (...connection) => {
    transports.push(tlsServer.upgrade(...connection));
    return transports[transports.length - 1];
  };
  test = await startTestServer([disk], { clock, tls: { required, upgrade }, ...server });
}

async function greeted(): Promise<RawClient> {
  const client = await RawClient.connect(test.address);
  clients.push(client);
  await client.greet();
  return client;
}

function withCertificate(extra: tls.ConnectionOptions = {}): tls.ConnectionOptions {
  return { ca: pki.ca, servername: 'localhost', ...pki.client, ...extra };
}

async function secured(options: tls.ConnectionOptions = withCertificate()): Promise<RawClient> {
  const client = await greeted();
  await client.startTls(options);
  return client;
}

async function serving(options?: tls.ConnectionOptions): Promise<RawClient> {
  const client = await secured(options);
  await client.option(Option.STRUCTURED_REPLY);
  client.structured = true;
  expect((await client.option(Option.GO, go)).at(-1)?.reply).toBe(Rep.ACK);
  return client;
}

/** Holes would be told in a few bytes. */
async function fill(bytes: number): Promise<void> {
  const client = await serving();
  const payload = Buffer.alloc(MiB, 0x5a);
  for (let at = 0; at < bytes; at += MiB) await client.writeAt(at, payload);
  await client.close();
  await eventually(() => test.server.stats().connections === 0, 'the filler is gone');
}

/** Lets time pass over the server's sweeps, of which the first one may see progress, until so many are left. */
async function stallOut(left: number): Promise<void> {
  const gone = () => test.server.stats().connections === left;
  for (let i = 0; i < 20 && !gone(); i++) {
    clock.skip(SEND_STALL_MS + 1);
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  expect(gone()).toBe(true);
}

/** The client gets no answer to an option, however the refusal shows on its side. */
async function expectRefused(options: tls.ConnectionOptions, reason: RegExp): Promise<void> {
  const client = await greeted();
  const answer = client.startTls(options).then(async () => client.option(Option.LIST));
  await expect(answer).rejects.toThrow();
  await client.closed;
  await eventually(() => test.server.stats().connections === 0, 'the connection is gone');
  const failures = tlsLog.filter(({ message }) => message === 'a TLS handshake failed');
  expect(failures).toHaveLength(1);
  expect((failures[0].fields as { reason: string }).reason).toMatch(reason);
}

describe.each(['TLSv1.2', 'TLSv1.3'] as const)('with certificates, %s', (version) => {
  const options = () => withCertificate({ minVersion: version, maxVersion: version });

  it('carries requests and replies of every length both ways', async () => {
    await start(certificates());
    const client = await serving(options());
    expect((client.socket as tls.TLSSocket).getProtocol()).toBe(version);
    for (const length of [1, 4096, 16_384, 100_001, 4 * MiB, 32 * MiB]) {
      const data = randomBytes(length);
      expect(await client.writeAt(3, data)).toBe(Errno.OK);
      expect((await client.readAt(3, length)).data.equals(data)).toBe(true);
    }
    expect(JSON.stringify(tlsLog)).toContain('"identity":"CN=alice"');
  });

  it('refuses a client without a certificate, of another CA, or with an expired one', async () => {
    await start(certificates());
    const none = { ...options(), cert: undefined, key: undefined };
    await expectRefused(none, /peer did not return a certificate|hang up/);
    tlsLog.length = 0;
    await expectRefused({ ...options(), ...pki.stranger }, /UNABLE_TO_VERIFY|UNABLE_TO_GET_ISSUER/);
    tlsLog.length = 0;
    await expectRefused({ ...options(), ...pki.expired }, /CERT_HAS_EXPIRED/);
  });

  it('is not trusted by a client that knows another CA', async () => {
    await start(certificates());
    const client = await greeted();
    await expect(client.startTls({ ...options(), ca: pki.otherCa })).rejects.toThrow(
      /certificate|self-signed/i,
    );
    await client.close();
  });

  it('takes a client without a certificate where clients are not verified', async () => {
    await start(certificates(false));
    const client = await serving({ ...options(), cert: undefined, key: undefined });
    expect((await client.readAt(0, 4096)).error).toBe(Errno.OK);
  });
});

describe.each(['TLSv1.2', 'TLSv1.3'] as const)('with pre-shared keys, %s', (version) => {
  const key = randomBytes(32);
  const psk = (identity: string, bytes: Buffer): tls.ConnectionOptions => ({
    minVersion: version,
    maxVersion: version,
    ciphers: 'PSK:ALL',
    checkServerIdentity: () => undefined,
    pskCallback: () => ({ psk: bytes, identity }),
  });
  const keys = new Map([
    ['alice', key],
    ['bob', randomBytes(32)],
  ]);

  it('serves who knows a key, by its name', async () => {
    await start({ kind: 'psk', keys });
    const client = await serving(psk('alice', key));
    const data = randomBytes(MiB);
    expect(await client.writeAt(0, data)).toBe(Errno.OK);
    expect((await client.readAt(0, MiB)).data.equals(data)).toBe(true);
    expect(JSON.stringify(tlsLog)).toContain('"identity":"psk:alice"');
  });

  it('refuses a wrong key, the key of another name, an unknown name, and a client with no key at all', async () => {
    await start({ kind: 'psk', keys });
    for (const options of [psk('alice', randomBytes(32)), psk('bob', key), psk('mallory', key)]) {
      tlsLog.length = 0;
      await expectRefused(options, /./);
    }
    tlsLog.length = 0;
    await expectRefused(
      { minVersion: version, maxVersion: version, rejectUnauthorized: false },
      /no shared cipher|no suitable/,
    );
  });
});

describe.each(['TLSv1.2', 'TLSv1.3'] as const)('with pre-shared keys, %s, what a client sees', (version) => {
  it('of an unknown name is what it sees of a wrong key', async () => {
    await start({ kind: 'psk', keys: new Map([['alice', randomBytes(32)]]) });
    const ending = async (identity: string): Promise<unknown> => {
      const client = await greeted();
      const secured = client.startTls({
        ...{ minVersion: version, maxVersion: version, ciphers: 'PSK:ALL' },
        checkServerIdentity: () => undefined,
        pskCallback: () => ({ psk: randomBytes(32), identity }),
      });
      const error = await secured.then(
        () => undefined,
        ({ code, message }: NodeJS.ErrnoException) => ({ code, message: message.replace(/^\w+:/, '') }),
      );
      await client.closed;
      return error;
    };
    const known = await ending('alice');
    expect(known).toBeDefined();
    expect(await ending('mallory')).toEqual(known);
    expect(tlsLog).toContainEqual(
      expect.objectContaining({
        message: 'no pre-shared key has the name',
        fields: expect.objectContaining({ name: 'mallory' }),
      }),
    );
  });
});

describe('TLS itself', () => {
  it('is 1.2 or newer, with ciphers that are authenticated and forward secret', async () => {
    await start(certificates());
    await expectRefused(
      withCertificate({ minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' }),
      /version|protocol/i,
    );
    for (const ciphers of ['AES256-GCM-SHA384', 'ECDHE-ECDSA-AES256-SHA', 'AECDH-AES256-SHA', 'NULL']) {
      tlsLog.length = 0;
      const weak = `${ciphers}:@SECLEVEL=0`;
      await expectRefused(withCertificate({ maxVersion: 'TLSv1.2', ciphers: weak }), /cipher/i);
    }
  });

  it('knows three groups, and none that costs the server much more than the client', async () => {
    await start(certificates());
    for (const ecdhCurve of ['X25519', 'prime256v1', 'secp384r1']) {
      await (await serving(withCertificate({ ecdhCurve }))).close();
    }
    await (await serving(withCertificate({ ecdhCurve: 'prime256v1', maxVersion: 'TLSv1.2' }))).close();
    await eventually(() => test.server.stats().connections === 0, 'these are gone');
    for (const ecdhCurve of ['ffdhe2048', 'ffdhe3072', 'ffdhe4096', 'ffdhe6144', 'ffdhe8192', 'secp521r1']) {
      tlsLog.length = 0;
      await expectRefused(withCertificate({ ecdhCurve, minVersion: 'TLSv1.3' }), /no suitable key share/);
    }
  });

  it('with pre-shared keys too, and agrees on no DHE', async () => {
    const key = randomBytes(32);
    await start({ kind: 'psk', keys: new Map([['alice', key]]) });
    const psk = (more: tls.ConnectionOptions): tls.ConnectionOptions => ({
      ...{ ciphers: 'PSK:ALL', checkServerIdentity: () => undefined },
      ...{ pskCallback: () => ({ psk: key, identity: 'alice' }), ...more },
    });
    await expectRefused(psk({ ecdhCurve: 'ffdhe8192', minVersion: 'TLSv1.3' }), /no suitable key share/);
    for (const ciphers of [
      'DHE-PSK-AES128-GCM-SHA256',
      'DHE-PSK-AES256-GCM-SHA384',
      'PSK-AES256-GCM-SHA384',
    ]) {
      tlsLog.length = 0;
      const only = psk({ ciphers: `${ciphers}:@SECLEVEL=0`, maxVersion: 'TLSv1.2' });
      await expectRefused(only, /no shared cipher/);
    }
    const client = await serving(psk({ maxVersion: 'TLSv1.2' }));
    expect((client.socket as tls.TLSSocket).getCipher().name).toBe('ECDHE-PSK-CHACHA20-POLY1305');
  });

  it('can be held to 1.3', async () => {
    await start(certificates(), { minVersion: 'TLSv1.3' });
    await expectRefused(withCertificate({ maxVersion: 'TLSv1.2' }), /version|protocol/i);
    await serving();
  });

  it('resumes no session: each connection proves anew who it is', async () => {
    await start(certificates());
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      const first = await greeted();
      const sessions: Buffer[] = [];
      const starting = first.startTls(withCertificate({ maxVersion }));
      await starting;
      (first.socket as tls.TLSSocket).on('session', (session) => sessions.push(session));
      await first.option(Option.LIST);
      await first.option(Option.LIST);
      const session = sessions.at(-1) ?? (first.socket as tls.TLSSocket).getSession();
      const second = await greeted();
      // Without its certificate the session is all that it has.
      const answer = second
        .startTls({ ca: pki.ca, servername: 'localhost', maxVersion, session, rejectUnauthorized: false })
        .then(() => second.option(Option.LIST));
      await expect(answer).rejects.toThrow();
      await first.close();
    }
  });

  it('is not renegotiated', async () => {
    await start(certificates());
    const client = await serving(withCertificate({ maxVersion: 'TLSv1.2' }));
    const socket = client.socket as tls.TLSSocket;
    const outcome = new Promise<Error | null>((resolve) => {
      socket.once('error', resolve);
      socket.renegotiate({}, resolve);
    });
    expect(await outcome).toBeInstanceOf(Error);
    await serving();
  });

  it('takes new certificates for connections to come, and keeps the old ones where these are unusable', async () => {
    await start(certificates());
    const before = await serving();
    const renewed = await pki.issue({ kind: 'server', hosts: ['renewed.example', 'localhost'] });
    tlsServer.replace({ ...certificates(), ...renewed } as TlsCredentials);
    const after = await secured();
    expect((after.socket as tls.TLSSocket).getPeerCertificate().subject.CN).toBe('renewed.example');
    expect((await before.readAt(0, 4096)).error).toBe(Errno.OK);
    const broken = { ...certificates(), cert: pki.client.cert } as TlsCredentials;
    expect(() => tlsServer.replace(broken)).toThrow(/TLS: .*key values mismatch/);
    const still = await secured();
    expect((still.socket as tls.TLSSocket).getPeerCertificate().subject.CN).toBe('renewed.example');
  });

  it('is not begun with a client that is gone once STARTTLS is answered', async () => {
    await start(certificates());
    for (let i = 0; i < 50; i++) {
      const leaving = await greeted();
      leaving.write(encodeOption(Option.STARTTLS, EMPTY));
      leaving.socket.resetAndDestroy();
    }
    await eventually(() => test.server.stats().connections === 0, 'they are gone');
    expect(test.server.stats().accepted).toBe(50);
    expect(test.log.filter(({ level }) => level === 'error')).toEqual([]);
    await serving();
  });

  it('drops a handshake that does not end in time, and one that is no TLS', async () => {
    await start(certificates());
    const silent = await greeted();
    await silent.option(Option.STARTTLS);
    clock.skip(HANDSHAKE_TIMEOUT_MS + 1);
    await silent.closed;
    const rude = await greeted();
    await rude.option(Option.STARTTLS);
    rude.write(encodeOption(Option.GO, go));
    await rude.closed;
    await eventually(() => test.server.stats().connections === 0, 'both are gone');
  });

  it('has for its handshake the time that it was given, and no other', async () => {
    await start(certificates(), { handshakeMs: 300 }, { limits: { handshakeMs: 3_600_000 } });
    const silent = await greeted();
    await silent.option(Option.STARTTLS);
    await eventually(() => test.server.stats().connections === 0, 'it is gone');
    expect(tlsLog.map(({ message }) => message)).toContain('a TLS handshake failed');
  });

  it('garbage in place of a handshake, or in the middle of records, costs its own connection and leaves nothing', async () => {
    await start(certificates());
    const polite = await serving();
    const noise = new SeededRandom(testSeed('nbd-tls'));
    const bytes = (most: number) =>
      Buffer.from(Array.from({ length: 1 + noise.below(most) }, () => noise.below(256)));
    for (let i = 0; i < 60; i++) {
      const rude = await greeted();
      await rude.option(Option.STARTTLS);
      if (i % 2 === 0) {
        // Half of them look like a record at first.
        rude.write(Buffer.concat([Buffer.from(i % 4 === 0 ? [22, 3, 1, 0, 200] : []), bytes(2000)]));
      } else {
        const raw = rude.socket;
        await rude.secure(withCertificate());
        raw.write(bytes(2000));
      }
      // What is no handshake is refused; what could become one is given up by the client.
      await Promise.race([rude.closed, new Promise((resolve) => setTimeout(resolve, 20))]);
      await rude.close();
    }
    expect((await polite.readAt(0, 4096)).error).toBe(Errno.OK);
    await eventually(() => test.server.stats().connections === 1, 'they are gone');
    await eventually(() => test.server.stats().memory.lentBytes === 0, 'nothing is held');
  });
});

describe('an identity', () => {
  it('is shown without what a terminal would act on', () => {
    const subject = new Map([
      ['CN', ['alice\u001b[2J', 'b']],
      ['O', ['x\r\ny']],
    ]);
    expect(describeIdentity({ kind: 'certificate', subject })).toBe('CN=alice?[2J,CN=b,O=x??y');
    expect(describeIdentity({ kind: 'psk', name: 'a\u009bb' })).toBe('psk:a?b');
  });
});

describe('STARTTLS', () => {
  it('is the only way in where it is required', async () => {
    await start(certificates());
    const client = await greeted();
    for (const option of [Option.LIST, Option.INFO, Option.GO, Option.STRUCTURED_REPLY, 99]) {
      expect((await client.option(option, go)).map(({ reply }) => reply)).toEqual([Rep.ERR_TLS_REQD]);
    }
    expect((await client.option(Option.GO, Buffer.alloc(70_000)))[0].reply).toBe(Rep.ERR_TLS_REQD);
    expect((await client.option(Option.STARTTLS, Buffer.alloc(1)))[0].reply).toBe(Rep.ERR_INVALID);
    expect((await client.option(Option.ABORT))[0].reply).toBe(Rep.ACK);
    const old = await greeted();
    old.write(encodeOption(Option.EXPORT_NAME, Buffer.from('disk')));
    await old.closed;
  });

  it('is offered, and plaintext served, where it is allowed', async () => {
    await start(certificates(), { required: false });
    const plain = await RawClient.serving(test.address, 'disk');
    clients.push(plain);
    await plain.writeAt(0, Buffer.alloc(4096, 7));
    const client = await serving();
    expect((await client.readAt(0, 4096)).data.equals(Buffer.alloc(4096, 7))).toBe(true);
  });

  it('forgets what was negotiated before it', async () => {
    await start(certificates(), { required: false });
    const client = await greeted();
    await client.option(Option.STRUCTURED_REPLY);
    await client.startTls(withCertificate());
    await client.option(Option.GO, go);
    const answer = await client.readAt(0, 512);
    expect(answer.messages[0].simple).toBe(true);
  });

  it('throws away plaintext that came behind it (CVE-2021-3716)', async () => {
    await start(certificates(), { required: false });
    const client = await greeted();
    // What somebody on the way would put in: structured replies, or even the whole negotiation.
    const injected = [encodeOption(Option.STRUCTURED_REPLY, EMPTY), encodeOption(Option.GO, go)];
    client.write(Buffer.concat([encodeOption(Option.STARTTLS, EMPTY), ...injected]));
    expect((await client.optionReplies(Option.STARTTLS)).map(({ reply }) => reply)).toEqual([Rep.ACK]);
    await client.secure(withCertificate());
    // The first answer under TLS is to the first option under TLS.
    expect((await client.option(Option.LIST)).at(-1)?.reply).toBe(Rep.ACK);
    expect(test.server.clients()[0].exportName).toBeUndefined();
    await client.option(Option.GO, go);
    expect((await client.readAt(0, 512)).messages[0].simple).toBe(true);
  });

  it('a second time is INVALID', async () => {
    await start(certificates());
    const client = await secured();
    expect((await client.option(Option.STARTTLS))[0].reply).toBe(Rep.ERR_INVALID);
    expect((await client.option(Option.LIST)).at(-1)?.reply).toBe(Rep.ACK);
  });
});

describe('a connection under TLS', () => {
  it('answers what is in flight before it ends, after DISC and after a half close', async () => {
    await start(certificates());
    for (const end of ['disconnect', 'half close'] as const) {
      const release: (() => void)[] = [];
      disk.delay = () => new Promise((resolve) => release.push(resolve));
      const client = await serving();
      const cookie = client.send(Command.READ, 0, 2 * MiB, { flags: 4 });
      await eventually(() => release.length > 0, 'the read is in flight');
      if (end === 'disconnect') client.send(Command.DISC, 0, 0);
      else client.socket.end();
      disk.delay = () => undefined;
      for (const done of release) done();
      expect((await client.answer(cookie)).data).toHaveLength(2 * MiB);
      await client.closed;
    }
  });

  it('ends in order with the server: what is in flight is answered, what comes is refused', async () => {
    await start(certificates());
    const release: (() => void)[] = [];
    disk.delay = () => new Promise((resolve) => release.push(resolve));
    const client = await serving();
    const read = client.send(Command.READ, 0, 4096);
    await eventually(() => release.length === 1, 'the read is in flight');
    const shaking = await greeted();
    await shaking.option(Option.STARTTLS);
    const stopped = test.server.stop();
    const late = client.send(Command.READ, 0, 4096);
    expect(await client.message()).toMatchObject({ cookie: late, error: Errno.ESHUTDOWN });
    release[0]();
    expect((await client.answer(read)).error).toBe(Errno.OK);
    await Promise.all([client.closed, shaking.closed, stopped]);
    expect(disk.clients).toBe(0);
  });

  it('whose client reads nothing holds little, disturbs nobody, and is dropped in time', async () => {
    await start(certificates());
    await fill(4 * MiB);
    const slow = await serving();
    slow.socket.pause();
    for (let i = 0; i < 64; i++) slow.send(Command.READ, 0, 4 * MiB);
    const polite = await serving();
    for (let i = 0; i < 20; i++) expect((await polite.readAt(0, 4096)).error).toBe(Errno.OK);
    expect(test.server.stats().memory.bytes).toBeLessThanOrEqual(32 * MiB);
    await stallOut(1);
    await slow.close();
    expect((await polite.readAt(0, 4096)).error).toBe(Errno.OK);
  });

  it('is dropped too where only the last bytes are not taken', async () => {
    await start(certificates());
    await fill(MiB);
    const slow = await serving();
    slow.socket.pause();
    // One by one, until the sockets take no more: what is left is with Node alone, and the server has nothing to send.
    const [, transport] = transports;
    const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
    const isStuck = async () => {
      await pause(5);
      if (transport.unflushedBytes > 0) await pause(100);
      return transport.unflushedBytes > 0;
    };
    for (let sent = 0; !(await isStuck()); sent += 128 * 1024) {
      if (sent > 64 * MiB) throw new Error('the sockets take everything');
      slow.send(Command.READ, 0, 128 * 1024);
    }
    await stallOut(0);
    await slow.close();
  });

  it('is not read from while the device keeps its writes waiting', async () => {
    await start(certificates());
    const release: (() => void)[] = [];
    disk.delay = (operation) =>
      operation === 'write' ? new Promise((resolve) => release.push(resolve)) : undefined;
    const client = await serving();
    const payload = Buffer.alloc(4 * MiB, 5);
    const cookies = Array.from({ length: 64 }, (_, i) =>
      client.send(Command.WRITE, 0, payload.length, { payload, cookie: i + 1 }),
    );
    let last = -1;
    await eventually(() => {
      const { bytes } = test.server.stats().memory;
      const still = bytes === last && client.socket.writableLength > 0;
      last = bytes;
      return still;
    }, 'the client is held up');
    expect(last).toBeLessThanOrEqual(96 * MiB);
    disk.delay = () => undefined;
    const drained = once(client.socket, 'drain');
    for (const done of release) done();
    await drained;
    const answered = new Set<number>();
    while (answered.size < cookies.length) {
      const message = await client.message();
      expect(message.error).toBe(Errno.OK);
      answered.add(message.cookie);
    }
  });

  it('in records of a byte each is held up sooner, by what these cost', async () => {
    await start(certificates());
    const release: (() => void)[] = [];
    disk.delay = (operation) =>
      operation === 'read' ? new Promise((resolve) => release.push(resolve)) : undefined;
    const client = await serving();
    // So many reads are under way that nothing more is taken in.
    for (let i = 0; i < 300; i++) client.send(Command.READ, 0, 4096, { cookie: i + 1 });
    await eventually(() => test.server.clients()[0].inFlight === 256, 'the connection is at its limit');
    const socket = client.socket as tls.TLSSocket;
    const one = Buffer.alloc(1);
    // The next one when the last is away, or Node would make one record of many.
    const next = (error?: Error | null): void => {
      if (!error && !socket.destroyed) socket.write(one, next);
    };
    next();
    let last = -1;
    await eventually(() => {
      const still = test.server.stats().memory.lentBytes === last;
      last = test.server.stats().memory.lentBytes;
      return still && last > 200_000;
    }, 'the client is held up');
    // The allowance, and what one read of the socket can bring beyond it.
    expect(last).toBeLessThanOrEqual(TLS_BYTES_MAX + 4000 * (1 + TLS_RECORD_COST_BYTES));
    await client.close();
    for (const done of release) done();
    await eventually(() => test.server.stats().memory.lentBytes === 0, 'all is given back');
  });

  it('holds no buffer while it is silent, whatever it read before', async () => {
    await start(certificates());
    await fill(8 * MiB);
    const silent = await Promise.all([serving(), serving(), serving()]);
    for (const client of silent) {
      for (const length of [4096, 8 * MiB, 65_536])
        expect((await client.readAt(0, length)).error).toBe(Errno.OK);
      await client.writeAt(0, Buffer.alloc(2 * MiB, 7));
    }
    await eventually(() => {
      const { largeUsed, smallUsed } = test.server.stats().memory;
      return largeUsed === 0 && smallUsed === 0 && test.server.stats().memory.lentBytes === 0;
    }, 'nothing is held');
    expect(test.server.stats().connections).toBe(silent.length);
  });

  it('leaves no descriptor behind, wherever it breaks off', async () => {
    await start(certificates());
    await (await serving()).close();
    const descriptors = () => readdirSync('/proc/self/fd').length;
    await eventually(() => test.server.stats().connections === 0, 'the first one is gone');
    const before = descriptors();
    const endings: ((client: RawClient) => Promise<unknown>)[] = [
      async (client) => client.option(Option.STARTTLS),
      async (client) => {
        await client.option(Option.STARTTLS);
        void client.secure(withCertificate()).catch(() => undefined);
      },
      async (client) => client.startTls(withCertificate({ ...pki.stranger })).catch(() => undefined),
      async (client) => client.startTls(withCertificate()),
      async (client) => {
        await client.startTls(withCertificate());
        await client.option(Option.GO, go);
        client.send(Command.READ, 0, MiB);
      },
    ];
    for (let i = 0; i < 100; i++) {
      const client = await greeted();
      await endings[i % endings.length](client);
      await client.close();
    }
    clients.length = 0;
    await eventually(() => test.server.stats().connections === 0, 'all are gone');
    await eventually(() => descriptors() <= before, `${descriptors()} descriptors, ${before} before`);
    expect(test.server.stats().memory.lentBytes).toBe(0);
  });

  it('gives all memory back when it breaks off', async () => {
    await start(certificates());
    await fill(MiB);
    for (let round = 0; round < 5; round++) {
      const client = await serving();
      client.socket.pause();
      for (let i = 0; i < 16; i++) client.send(Command.READ, 0, MiB);
      client.send(Command.WRITE, 0, MiB, { payload: Buffer.alloc(1000) });
      await eventually(() => test.server.stats().memory.largeUsed > 0, 'something is under way');
      await client.close();
      await eventually(() => test.server.stats().connections === 0, 'the connection is gone');
    }
    await eventually(() => {
      const { largeUsed, smallUsed } = test.server.stats().memory;
      return largeUsed === 0 && smallUsed === 0 && test.server.stats().memory.lentBytes === 0;
    }, 'nothing is held');
    expect(disk.clients).toBe(0);
  });
});
