/** Who has no token can't keep out who has it. */
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { AdminBackend } from '../../src/admin/backend.js';
import { type AdminListener, type AdminTls, listenTcp } from '../../src/admin/server.js';
import { ADMIN_CONNECTIONS_MAX, ADMIN_UNPROVEN_MAX } from '../../src/base/limits.js';
import { nullLogger } from '../../src/base/log.js';
import { secureContextOptions } from '../../src/nbd/tls-server.js';
import { testCertificates } from '../support/certificates.js';

const TOKEN = 'a-token-of-some-length';
let listener: AdminListener;
let port: number;
const sockets: Socket[] = [];

async function listen(tls?: AdminTls): Promise<void> {
  // No route is called, so nothing is asked of it.
  listener = await listenTcp('127.0.0.1', 0, TOKEN, tls, {} as AdminBackend, nullLogger);
  port = Number(new URL(listener.address).port);
}

beforeEach(() => listen());

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await listener.close();
});

function silent(): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  sockets.push(socket);
  return new Promise((resolve) => socket.once('connect', () => resolve(socket)));
}

function ask(token: string): Promise<{ status: number | undefined; connection: string | undefined }> {
  const where = { port, host: '127.0.0.1', path: '/nothing', agent: false, timeout: 3000 };
  return new Promise((resolve, reject) => {
    const outgoing = request({ ...where, headers: { authorization: `Bearer ${token}` } }, (incoming) => {
      incoming.resume();
      resolve({ status: incoming.statusCode, connection: incoming.headers.connection });
    });
    outgoing.on('error', reject);
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer')));
    outgoing.end();
  });
}

it('connections that show no token make room for newer ones', async () => {
  const all: Socket[] = [];
  for (let i = 0; i < 2 * ADMIN_CONNECTIONS_MAX; i++) all.push(await silent());
  expect((await ask(TOKEN)).status).toBe(404);
  await expect.poll(() => all.filter(({ closed }) => !closed).length).toBe(ADMIN_UNPROVEN_MAX - 1);
  expect(all.at(-1)?.closed).toBe(false);
});

it('a connection that showed it is not pushed out, and one with the wrong one is closed', async () => {
  const proven = await silent();
  let answers = '';
  proven.setEncoding('utf8').on('data', (text: string) => {
    answers += text;
  });
  const get = `GET /nothing HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${TOKEN}\r\n\r\n`;
  proven.write(get);
  await expect.poll(() => answers).toContain('404');
  for (let i = 0; i < 2 * ADMIN_UNPROVEN_MAX; i++) await silent();
  answers = '';
  proven.write(get);
  await expect.poll(() => answers).toContain('404');
  expect(await ask('wrong')).toEqual({ status: 401, connection: 'close' });
});

it('connections that send nothing go before those that began, and these before those whose TLS stands', async () => {
  await listener.close();
  const { server, ca } = await testCertificates();
  await listen({ context: { cert: server.cert, key: server.key }, verifyClients: false });
  const began = await silent();
  began.write(Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00]));
  const secured = connectTls({ port, host: '127.0.0.1', ca });
  sockets.push(secured);
  await new Promise((resolve) => secured.once('secureConnect', resolve));
  for (let i = 0; i < 2 * ADMIN_CONNECTIONS_MAX; i++) await silent();
  let answers = '';
  secured.setEncoding('utf8').on('data', (text: string) => {
    answers += text;
  });
  secured.write(`GET /nothing HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${TOKEN}\r\n\r\n`);
  await expect.poll(() => answers).toContain('404');
  expect(began.closed).toBe(false);
});

/** What the handshake ends with. */
function agreed(options: ConnectionOptions): Promise<string> {
  const socket = connectTls({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options });
  sockets.push(socket);
  return new Promise((resolve) => {
    socket.once('secureConnect', () => resolve(socket.getCipher().name));
    socket.once('error', ({ message }) => resolve(message));
  });
}

it('agrees on X25519, P-256 and P-384, and on no group in a finite field', async () => {
  await listener.close();
  const { server, ca } = await testCertificates();
  const credentials = { ...server, ca, crl: undefined, verifyClients: false };
  const context = secureContextOptions({ kind: 'certificates', ...credentials }, 'TLSv1.2');
  await listen({ context, verifyClients: false });
  const tls13 = { minVersion: 'TLSv1.3' } as const;
  for (const ecdhCurve of ['X25519', 'prime256v1', 'secp384r1'])
    expect(await agreed({ ...tls13, ecdhCurve }), ecdhCurve).toMatch(/^TLS_/);
  // In 1.2 the certificate has to be of a curve that the client names.
  expect(await agreed({ ecdhCurve: 'prime256v1', maxVersion: 'TLSv1.2' })).toMatch(/^ECDHE-/);
  for (const ecdhCurve of ['ffdhe2048', 'ffdhe3072', 'ffdhe8192', 'secp521r1'])
    expect(await agreed({ ...tls13, ecdhCurve }), ecdhCurve).toMatch(/handshake failure/);
  for (const ciphers of ['DHE', 'DHE-RSA-AES256-GCM-SHA384', 'ADH', 'AES256-GCM-SHA384']) {
    const dhe = { ciphers: `${ciphers}:@SECLEVEL=0`, maxVersion: 'TLSv1.2' } as const;
    expect(await agreed(dhe), ciphers).toMatch(/handshake failure/);
  }
});
