import { request } from 'node:http';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { adminSocket, DaemonProcess } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { qemuIo } from '../support/nbd-io.js';
import { RawClient } from '../support/nbd-raw-client.js';

const TOKEN = 'a-token-of-some-length';
const dataDirectory = () => join(temporaryDirectory(), 'data');

interface Answer {
  readonly status: number;
  readonly text: string;
}

function ask(
  where: object,
  method: string,
  path: string,
  body?: string,
  headers: object = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const type = body === undefined ? {} : { 'content-type': 'application/json' };
    const outgoing = request(
      { ...where, method, path, agent: false, headers: { ...type, ...headers } },
      (incoming) => {
        let text = '';
        incoming.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
        });
        incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, text }));
      },
    );
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}

describe('the admin API', () => {
  it('on TCP answers nobody without the token, on the socket it asks for none', async () => {
    const env = { SEALBD_ADMIN_TOKEN: TOKEN };
    const daemon = await DaemonProcess.start(dataDirectory(), ['--admin', '127.0.0.1:0', '--insecure'], {
      env,
    });
    const address = daemon.ready.admin.find((one) => one.startsWith('http:'))!;
    const where = { host: '127.0.0.1', port: new URL(address).port };
    const paths = ['/v1/status', '/v1/volumes', '/metrics', '/nothing'];
    for (const path of paths) {
      expect((await ask(where, 'GET', path)).status).toBe(401);
      expect((await ask(where, 'GET', path, undefined, { authorization: `Bearer ${TOKEN}x` })).status).toBe(
        401,
      );
      expect((await ask(where, 'GET', path, undefined, { authorization: TOKEN })).status).toBe(401);
    }
    const answer = await ask(where, 'GET', '/v1/status', undefined, { authorization: `Bearer ${TOKEN}` });
    expect(answer.status).toBe(200);
    expect((await ask({ socketPath: adminSocket(daemon.data) }, 'GET', '/v1/status')).status).toBe(200);
  });

  it('on another unix socket has mode 0600 and goes with the daemon', async () => {
    const socket = join(temporaryDirectory(), 'admin.sock');
    const daemon = await DaemonProcess.start(dataDirectory(), ['--admin', `unix:${socket}`]);
    expect((await ask({ socketPath: socket }, 'GET', '/v1/volumes')).text).toBe('[]');
    await daemon.stop();
    await expect(ask({ socketPath: socket }, 'GET', '/v1/volumes')).rejects.toMatchObject({ code: 'ENOENT' });
  });

  it('answers bad requests with a code and a sentence, and goes on', async () => {
    const daemon = await DaemonProcess.start(dataDirectory());
    const where = { socketPath: adminSocket(daemon.data) };
    const volume = (fields: object) => JSON.stringify({ name: 'v', sizeBytes: 64 * 2 ** 20, ...fields });
    const bad: [string, string, string | undefined, number, string][] = [
      ['GET', '/nothing', undefined, 404, 'NOT_FOUND'],
      ['GET', '/v1/volumes/none', undefined, 404, 'NOT_FOUND'],
      ['GET', '/v1/volumes/..%2f..%2fetc', undefined, 400, 'USAGE'],
      ['POST', '/v1/volumes', '{', 400, 'USAGE'],
      ['POST', '/v1/volumes', '[]', 400, 'USAGE'],
      ['POST', '/v1/volumes', volume({ sizeBytes: '64M' }), 400, 'USAGE'],
      ['POST', '/v1/volumes', volume({ sizeBytes: 1e300 }), 400, 'USAGE'],
      ['POST', '/v1/volumes', volume({ nonsense: 1 }), 400, 'USAGE'],
      ['POST', '/v1/volumes', volume({ name: '__proto__/x' }), 400, 'USAGE'],
    ];
    for (const [method, path, body, status, code] of bad) {
      const answer = await ask(where, method, path, body);
      expect([path, answer.status], answer.text).toEqual([path, status]);
      expect(JSON.parse(answer.text).error.code).toBe(code);
    }
    expect(await daemon.json(['volume', 'list'])).toEqual([]);
  });

  it('does not take in a body above the limit, and goes on', async () => {
    const daemon = await DaemonProcess.start(dataDirectory());
    const body = JSON.stringify({ name: 'x'.repeat(8 * 2 ** 20), sizeBytes: 4096 });
    const asked = ask({ socketPath: adminSocket(daemon.data) }, 'POST', '/v1/volumes', body);
    // It hangs up while the rest is still being sent: whether the answer is read is a matter of timing.
    const outcome = await asked.then(
      (answer) => answer.status,
      (error: NodeJS.ErrnoException) => error.code,
    );
    expect([400, 'EPIPE', 'ECONNRESET']).toContain(outcome);
    expect(await daemon.json(['volume', 'list'])).toEqual([]);
  });

  it('has metrics of volumes, keys and the NBD server', async () => {
    const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'v:64M']);
    expect((await qemuIo(daemon.uri('v'), 'write 0 1M', 'flush', 'read 0 4k')).code).toBe(0);
    const { text } = await ask({ socketPath: adminSocket(daemon.data) }, 'GET', '/metrics');
    const value = (series: string) =>
      Number(
        text
          .split('\n')
          .find((line) => line.startsWith(`${series} `))
          ?.split(' ')[1],
      );
    expect(value('sealbd_volume_mapped_bytes{volume="v"}')).toBe(2 ** 20);
    expect(value('sealbd_volume_size_bytes{volume="v"}')).toBe(64 * 2 ** 20);
    expect(value('sealbd_volume_state{volume="v",state="serving"}')).toBe(1);
    expect(value('sealbd_key_state{volume="v",state="valid"}')).toBe(1);
    expect(value('sealbd_nbd_requests_total{command="write"}')).toBeGreaterThan(0);
    expect(value('sealbd_nbd_bytes_written_total')).toBe(2 ** 20);
    expect(value('sealbd_nbd_errors_total')).toBe(0);
    // qemu-io is gone, and what was kept for the next client goes a little later.
    const memory = async () => {
      const { text: now } = await ask({ socketPath: adminSocket(daemon.data) }, 'GET', '/metrics');
      return now.match(/^sealbd_nbd_(memory_bytes|(small|large)_chunks_used|waiting_for_memory) .*$/gm);
    };
    await expect
      .poll(memory, { timeout: 30_000 })
      .toEqual(
        ['memory_bytes', 'small_chunks_used', 'large_chunks_used', 'waiting_for_memory'].map(
          (name) => `sealbd_nbd_${name} 0`,
        ),
      );
    expect(value('sealbd_keys_locked')).toBe(1);
    expect(value('sealbd_key_slots_used')).toBe(1);
    expect(value('sealbd_cipher_jobs_total{thread="main"}')).toBeGreaterThan(0);
    expect(value('sealbd_cipher_jobs_total{thread="pool"}')).toBeGreaterThanOrEqual(0);
    await daemon.ok('volume', 'stop', 'v');
    const stopped = await ask({ socketPath: adminSocket(daemon.data) }, 'GET', '/metrics');
    expect(stopped.text).toContain('\nsealbd_key_slots_used 0\n');
    await daemon.ok('volume', 'delete', 'v', '--yes');
    const after = await ask({ socketPath: adminSocket(daemon.data) }, 'GET', '/metrics');
    expect(after.text).not.toContain('volume="v"');
  });

  it('status shows volumes, keys and attached clients', async () => {
    const daemon = await DaemonProcess.start(dataDirectory(), ['--default-volume', 'v:64M']);
    const client = await RawClient.serving(daemon.ready.listen[0], 'v');
    const status = await daemon.json<{ clients: { volume: string }[] }>(['status']);
    expect(status).toMatchObject({
      pid: daemon.pid,
      keysLocked: true,
      listen: daemon.ready.listen,
      volumes: [{ name: 'v', state: 'serving', clients: 1 }],
      keys: [{ volume: 'v', state: 'valid' }],
      jobs: [],
    });
    expect(status.clients).toHaveLength(1);
    expect((await daemon.run(['status'])).stdout).toContain('serving');
    await client.close();
  });
});
