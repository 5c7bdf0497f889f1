import dns from 'node:dns';
import { createServer as createTcpServer, isIP, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { KMS_ANSWER_BYTES_MAX, KMS_CONNECTIONS_MAX } from '../../src/base/limits.js';
import { nullLogger } from '../../src/base/log.js';
import { SecretHttpHandler } from '../../src/kms/aws/http-handler.js';
import type { KmsEnvironment } from '../../src/kms/provider.js';
import { httpServer, hurriedClock } from '../support/aws-kms.js';

function handlerWith(changes: Partial<KmsEnvironment> = {}): SecretHttpHandler {
  return new SecretHttpHandler({ clock: systemClock, log: nullLogger, ...changes });
}

function requestTo(url: string, more: object = {}) {
  const { protocol, hostname, port, host } = new URL(url);
  return {
    protocol,
    hostname,
    port: Number(port),
    method: 'POST',
    path: '/',
    headers: { host },
    body: 'ask',
    ...more,
  };
}

/** A server of TCP that does with each connection what it is told, after the first bytes of a request. */
async function tcpServer(answer: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    socket.once('data', () => answer(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as { port: number }).port}`;
}

describe('the HTTP handler', () => {
  it('sends head and body as they are, and gives the answer as one buffer', async () => {
    const seen: object[] = [];
    const url = await httpServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => void chunks.push(chunk));
      request.on('end', () => {
        const { method, url: path, headers } = request;
        seen.push({ method, path, type: headers['x-type'], body: Buffer.concat(chunks).toString() });
        response.writeHead(418, 'short and stout', { 'x-name': 'value' });
        for (const piece of ['one ', 'two ', 'three']) response.write(piece);
        response.end();
      });
    });
    const request = requestTo(url, {
      path: '/a',
      query: { name: "it's (1)", list: ['a', 'b'] },
      headers: { 'x-type': 't', 'content-length': '5' },
      body: Buffer.from('bytes'),
    });
    const { response } = await handlerWith().handle(request);
    expect(seen).toEqual([
      { method: 'POST', path: '/a?name=it%27s%20%281%29&list=a&list=b', type: 't', body: 'bytes' },
    ]);
    expect(response).toMatchObject({
      statusCode: 418,
      reason: 'short and stout',
      headers: { 'x-name': 'value' },
    });
    expect(response.body.toString()).toBe('one two three');
  });

  it('hands no retry-after on: the SDK would wait as long as it says', async () => {
    const url = await httpServer((_request, response) => {
      response.writeHead(503, { 'retry-after': '3600', 'x-amz-retry-after': '3600000' }).end();
    });
    const { response } = await handlerWith().handle(requestTo(url));
    expect(Object.keys(response.headers).filter((name) => name.includes('retry'))).toEqual([]);
  });

  it.each([
    ['at once', (socket: Socket) => socket.end(), 'ECONNRESET'],
    ['in the head', (socket: Socket) => socket.end('HTTP/1.1 200 OK\r\nContent-'), 'ECONNRESET'],
    [
      'in the body',
      (socket: Socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc'),
      'ECONNRESET',
    ],
    [
      'in a chunk',
      (socket: Socket) => socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc'),
      'ECONNRESET',
    ],
    ['with a reset', (socket: Socket) => socket.resetAndDestroy(), 'ECONNRESET'],
  ])('rejects an answer that ends %s', async (_where, answer, code) => {
    const url = await tcpServer(answer);
    await expect(handlerWith().handle(requestTo(url))).rejects.toMatchObject({ code });
  });

  it('takes an answer of the largest size, and cuts off a larger one', async () => {
    const head = (length: number) => `HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\n\r\n`;
    const largest = KMS_ANSWER_BYTES_MAX - head(10_000).length;
    const fits = await tcpServer((socket) => socket.end(head(largest) + 'x'.repeat(largest)));
    const { response } = await handlerWith().handle(requestTo(fits));
    expect(response.body.length).toBe(largest);
    const exceeds = await tcpServer((socket) => socket.write(head(2 * largest) + 'x'.repeat(2 * largest)));
    await expect(handlerWith().handle(requestTo(exceeds))).rejects.toThrow();
  });

  it.each([
    ['sends nothing', () => undefined],
    [
      'sends a head and no body',
      (socket: Socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n'),
    ],
  ])('gives up on a server that %s', async (_what, answer) => {
    const url = await tcpServer(answer);
    await expect(handlerWith({ clock: hurriedClock(20) }).handle(requestTo(url))).rejects.toThrow();
  });

  it('ends a request that was aborted, and starts none after that', async () => {
    let asked = 0;
    const abort = new AbortController();
    const url = await tcpServer(() => {
      asked += 1;
      abort.abort();
    });
    const handler = handlerWith();
    const options = { abortSignal: abort.signal };
    await expect(handler.handle(requestTo(url), options)).rejects.toMatchObject({ name: 'AbortError' });
    await expect(handler.handle(requestTo(url), options)).rejects.toMatchObject({ name: 'AbortError' });
    expect(asked).toBe(1);
  });

  it('keeps the number of connections bounded, and serves the rest later', async () => {
    const held: Socket[] = [];
    let open = 0;
    let most = 0;
    const url = await tcpServer((socket) => {
      held.push(socket);
      open += 1;
      most = Math.max(most, open);
      socket.once('close', () => {
        open -= 1;
      });
    });
    const handler = handlerWith();
    const count = 2 * KMS_CONNECTIONS_MAX + 5;
    const answers = Promise.all(Array.from({ length: count }, () => handler.handle(requestTo(url))));
    for (let answered = 0; answered < count; answered++) {
      await expect.poll(() => held.length, { timeout: 30_000 }).toBeGreaterThan(0);
      held.shift()!.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
    }
    expect(await answers).toHaveLength(count);
    expect(most).toBeLessThanOrEqual(KMS_CONNECTIONS_MAX);
  });

  it('leaves no connection open', async () => {
    const closed: Promise<void>[] = [];
    const url = await tcpServer((socket) => {
      closed.push(new Promise((resolve) => socket.once('close', () => resolve())));
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok');
    });
    await handlerWith().handle(requestTo(url));
    expect(closed).toHaveLength(1);
    await closed[0];
  });
});

describe('a request without TLS', () => {
  /** Names resolve to that until the test has finished. */
  function resolveTo(address: string): void {
    const family = isIP(address);
    const lookup = vi.spyOn(dns, 'lookup').mockImplementation(((
      _name: string,
      options: object,
      done: unknown,
    ) => {
      const call = done as (error: null, ...result: unknown[]) => void;
      if ('all' in options && options.all === true) process.nextTick(call, null, [{ address, family }]);
      else process.nextTick(call, null, address, family);
    }) as typeof dns.lookup);
    onTestFinished(() => lookup.mockRestore());
  }

  async function countingServer(host = '127.0.0.1') {
    const seen = { connections: 0, bytes: 0 };
    const server = createTcpServer((socket) => {
      seen.connections += 1;
      socket.on('error', () => undefined);
      socket.on('data', (chunk) => {
        seen.bytes += chunk.length;
        socket.end('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n');
      });
    });
    await new Promise<void>((resolve) => server.listen(0, host, resolve));
    onTestFinished(() => void server.close());
    return { seen, port: (server.address() as { port: number }).port };
  }

  it.each(['127.0.0.1', '[::ffff:127.0.0.1]', 'localhost', 'LOCALHOST'])(
    'goes to this machine: %s',
    async (host) => {
      const { port, seen } = await countingServer();
      resolveTo('127.0.0.1');
      const request = requestTo(`http://127.0.0.1:${port}`, { hostname: host });
      expect((await handlerWith().handle(request)).response.statusCode).toBe(200);
      expect(seen.bytes).toBeGreaterThan(0);
    },
  );

  it.each([
    'kms.corp.example',
    '192.0.2.1',
    '[2001:db8::1]',
    '127.0.0.1.example',
    'localhost.example',
    '0.0.0.0',
  ])('goes to no other: %s gets not even a connection', async (hostname) => {
    const { port, seen } = await countingServer();
    resolveTo('127.0.0.1');
    const failure = await handlerWith()
      .handle(requestTo(`http://127.0.0.1:${port}`, { hostname }))
      .catch((error: unknown) => error);
    expect(failure).toMatchObject({
      kind: 'unreachable',
      awsName: 'EndpointInTheClear',
      message: expect.stringMatching(/in the clear.*https:.*--insecure/),
    });
    expect(seen).toEqual({ connections: 0, bytes: 0 });
  });

  const other = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ internal, family }) => !internal && family === 'IPv4')?.address;
  it.skipIf(other === undefined)('sends nothing where localhost is not this machine', async () => {
    const { port, seen } = await countingServer(other);
    resolveTo(other!);
    const request = requestTo(`http://127.0.0.1:${port}`, { hostname: 'localhost' });
    await expect(handlerWith().handle(request)).rejects.toThrow(/which is not this machine/);
    expect(seen.bytes).toBe(0);
  });

  it('goes anywhere where the operator says so, and the log has that once', async () => {
    const { port } = await countingServer();
    resolveTo('127.0.0.1');
    const warn = vi.fn();
    const handler = handlerWith({ insecure: true, log: { ...nullLogger, warn } });
    const request = requestTo(`http://127.0.0.1:${port}`, { hostname: 'kms.corp.example' });
    for (let i = 0; i < 2; i++) expect((await handler.handle(request)).response.statusCode).toBe(200);
    expect(warn).toHaveBeenCalledOnce();
    expect(warn).toHaveBeenCalledWith({ host: 'kms.corp.example' }, expect.stringContaining('in the clear'));
    expect([...handler.inTheClear]).toEqual(['kms.corp.example']);
  });
});
