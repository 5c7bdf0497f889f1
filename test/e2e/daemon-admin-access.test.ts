/** Who gets to the admin API: by TLS and token over TCP, by user over a unix socket. */
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { DaemonProcess, sealbd } from '../support/daemon-process.js';

const TOKEN = 'a-token-of-some-length';
const NOBODY = 65_534;
let directory: string;
const at = (...names: string[]) => join(directory, ...names);
const pem = (name: string) => readFileSync(at('pki', name), 'utf8');

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'sealbd-admin-access-'));
  const made = await sealbd(['tls', 'init', at('pki')]);
  if (made.code !== 0) throw new Error(made.stderr);
});

afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** The status, or an error where TLS gives none. */
function ask(port: string, tls: ConnectionOptions, token?: string): Promise<number> {
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const where = { host: '127.0.0.1', port, path: '/v1/status', agent: false, headers };
  return new Promise((resolve, reject) => {
    const outgoing = request({ ...where, ca: pem('ca-cert.pem'), ...tls }, (incoming) => {
      incoming.resume();
      resolve(incoming.statusCode ?? 0);
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
}

it('on TCP it needs TLS, a certificate and the token; new certificates come with SIGHUP', async () => {
  const args = ['--admin', '127.0.0.1:0', '--tls-certificates', at('pki')];
  const daemon = await DaemonProcess.start(at('data'), args, { env: { SEALBD_ADMIN_TOKEN: TOKEN } });
  const { port } = new URL(daemon.ready.admin.find((one) => one.startsWith('https:'))!);
  const own = { cert: pem('client-cert.pem'), key: pem('client-key.pem') };
  expect(await ask(port, own, TOKEN)).toBe(200);
  expect(await ask(port, own)).toBe(401);
  expect(await ask(port, own, `${TOKEN}x`)).toBe(401);
  await expect(ask(port, {}, TOKEN)).rejects.toThrow();
  await expect(ask(port, { ...own, ca: undefined }, TOKEN)).rejects.toThrow(/certificate/);
  await expect(ask(port, { ...own, maxVersion: 'TLSv1.1', minVersion: 'TLSv1' }, TOKEN)).rejects.toThrow();

  rmSync(at('pki'), { recursive: true });
  await sealbd(['tls', 'init', at('pki')]);
  await expect(ask(port, own, TOKEN)).rejects.toThrow(/certificate|signature/);
  process.kill(daemon.pid, 'SIGHUP');
  await expect.poll(() => daemon.logText).toContain('were read anew');
  const renewed = { cert: pem('client-cert.pem'), key: pem('client-key.pem') };
  expect(await ask(port, renewed, TOKEN)).toBe(200);
  await expect(ask(port, own, TOKEN)).rejects.toThrow();
  expect((await daemon.stop()).code).toBe(0);
});

it('without TLS a SIGHUP stops the daemon in order, as a terminal that goes away does', async () => {
  const daemon = await DaemonProcess.start(at('plain'));
  expect((await daemon.signal('SIGHUP')).code).toBe(0);
});

it.skipIf(process.geteuid?.() !== 0)(
  'another user gets no answer on the socket, whatever its mode',
  async () => {
    const open = mkdtempSync(join(tmpdir(), 'sealbd-open-'));
    try {
      chmodSync(open, 0o755);
      const socket = join(open, 'admin.sock');
      const daemon = await DaemonProcess.start(at('uid'), ['--admin', `unix:${socket}`]);
      chmodSync(socket, 0o666);
      const curl = (uid: number) =>
        spawnSync(
          process.execPath,
          [
            '-e',
            `require('http').get({ socketPath: ${JSON.stringify(socket)}, path: '/v1/volumes', agent: false },
             (answer) => console.log(answer.resume().statusCode)).on('error', (error) => console.log(error.code))`,
          ],
          { uid, encoding: 'utf8' },
        ).stdout.trim();
      expect(curl(0)).toBe('200');
      expect(curl(NOBODY)).toMatch(/^(ECONNRESET|EPIPE)$/);
      await expect.poll(() => daemon.logText).toContain(`"uid":${NOBODY}`);
      expect(curl(0)).toBe('200');
    } finally {
      rmSync(open, { recursive: true, force: true });
    }
  },
);
