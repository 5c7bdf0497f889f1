/** The addon's sockets: addresses, files, exhaustion, and more than one environment. */
import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { addon } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import { openSockets } from '../../src/nbd/poller.js';
import { Errno } from '../../src/nbd/wire/constants.js';
import { MemoryDevice } from '../support/memory-device.js';
import { ADDON_FILE } from '../support/native-kernels.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { eventually, startTestServer, type TestServer } from '../support/nbd-test-server.js';

let dir: string;
let test: TestServer;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'nbd-sockets-'));
  test = await startTestServer([new MemoryDevice({ name: 'disk' })]);
});

afterEach(async () => {
  await test.stop();
  rmSync(dir, { recursive: true, force: true });
  expect(openSockets()).toBe(0);
});

async function expectServes(address: string): Promise<void> {
  const client = await RawClient.serving(address, 'disk');
  expect((await client.readAt(0, 4096)).error).toBe(Errno.OK);
  await client.close();
}

describe('listening', () => {
  it('on port 0 tells the port; on IPv6 and on a host name works too', async () => {
    expect(test.address).toMatch(/^127\.0\.0\.1:[1-9]\d*$/);
    await expectServes(test.address);
    const v6 = await test.server.listen({ kind: 'tcp', host: '::1', port: 0 });
    expect(v6).toMatch(/^\[::1\]:\d+$/);
    await expectServes(v6);
    await expectServes(await test.server.listen({ kind: 'tcp', host: 'localhost', port: 0 }));
    expect(test.server.addresses.length).toBe(3);
  });

  it('on a taken port fails with the address and the reason', async () => {
    const port = Number(test.address.split(':')[1]);
    await expect(test.server.listen({ kind: 'tcp', host: '127.0.0.1', port })).rejects.toThrow(
      `cannot listen on 127.0.0.1 port ${port}: address already in use (EADDRINUSE)`,
    );
  });

  it('on a unix socket gives it its mode, serves, and removes it', async () => {
    const path = join(dir, 's');
    for (const mode of [0o600, 0o666]) {
      const own = await startTestServer([new MemoryDevice({ name: 'disk' })]);
      const address = await own.server.listen({ kind: 'unix', path, mode });
      expect(address).toBe(`unix:${path}`);
      expect(statSync(path).mode & 0o777).toBe(mode);
      await expectServes(address);
      await own.stop();
      expect(existsSync(path)).toBe(false);
    }
  });

  it('replaces a stale unix socket, but no live one and no other file', async () => {
    const path = join(dir, 's');
    const owner = spawn(process.execPath, [
      '-e',
      `require('net').createServer().listen(${JSON.stringify(path)}, () => console.log('listening'))`,
    ]);
    // There is a moment between bind and listen at which the file is there and a connection is refused.
    await new Promise((resolve) => owner.stdout.once('data', resolve));
    const listen = () => test.server.listen({ kind: 'unix', path, mode: 0o600 });
    await expect(listen()).rejects.toThrow(/EADDRINUSE/);
    owner.kill('SIGKILL');
    await new Promise((resolve) => owner.on('close', resolve));
    expect(existsSync(path)).toBe(true);
    await expectServes(await listen());
    const file = join(dir, 'f');
    writeFileSync(file, 'precious');
    await expect(test.server.listen({ kind: 'unix', path: file, mode: 0o600 })).rejects.toThrow(/EADDRINUSE/);
    expect(existsSync(file)).toBe(true);
  });

  it('does not remove a socket that has replaced its own', async () => {
    const path = join(dir, 's');
    await test.server.listen({ kind: 'unix', path, mode: 0o600 });
    rmSync(path);
    const successor = net.createServer();
    await new Promise<void>((resolve) => successor.listen(path, resolve));
    await test.stop();
    expect(existsSync(path)).toBe(true);
    await new Promise((resolve) => successor.close(resolve));
  });

  it('with a path that is too long fails', async () => {
    const path = join(dir, 'x'.repeat(120));
    await expect(test.server.listen({ kind: 'unix', path, mode: 0o600 })).rejects.toThrow(/ENAMETOOLONG/);
  });

  it('survives running out of descriptors, without spinning, and goes on afterwards', async () => {
    const client = spawn('sh', ['-c', `sleep 0.3; exec nbdinfo --size nbd://${test.address}/disk`], {
      stdio: ['ignore', 'ignore', 'ignore'],
    });
    const ended = new Promise((resolve) => client.on('close', resolve));
    const limit = spawn('prlimit', [`--pid=${process.pid}`, '--nofile=200:'], { stdio: 'ignore' });
    await new Promise((resolve) => limit.on('close', resolve));
    const files: number[] = [];
    try {
      for (;;) files.push(openSync('/dev/null', 'r'));
    } catch (error) {
      expect(String(error)).toContain('EMFILE');
    }
    const warnings = () => test.log.filter(({ level }) => level === 'warn').length;
    await eventually(() => warnings() > 0, 'the listener says so');
    const cpu = process.cpuUsage();
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(process.cpuUsage(cpu).user / 1000).toBeLessThan(300);
    expect(warnings()).toBeLessThan(12);
    for (const file of files) closeSync(file);
    expect(await ended).toBe(0);
  });
});

describe('a connection', () => {
  it('is probed when it is silent, so that a peer that is gone is noticed', async () => {
    const client = await RawClient.serving(test.address, 'disk');
    const port = Number(test.address.split(':')[1]);
    const hex = port.toString(16).toUpperCase().padStart(4, '0');
    // Local address, remote address, state, queues, timer:when (2 is keepalive; when is in hundredths of a second).
    const probedInMs = () => {
      const lines = readFileSync('/proc/net/tcp', 'utf8').split('\n');
      const line = lines.find((one) => new RegExp(`^ *\\d+: \\w+:${hex} \\w+:\\w+ 01 `).test(one));
      const [, when] = / 02:([0-9A-F]{8}) /.exec(line ?? '') ?? [];
      return when === undefined ? Number.POSITIVE_INFINITY : 10 * Number.parseInt(when, 16);
    };
    await expect.poll(probedInMs).toBeLessThanOrEqual(60_000);
    await client.close();
  });
});

describe('handles', () => {
  it('that are closed stay invalid: every call gives EBADF, whoever has the slot now', () => {
    const first = addon.ioListenTcp('127.0.0.1', 0, 8);
    expect(addon.ioClose(first)).toBe(0);
    const second = addon.ioListenTcp('127.0.0.1', 0, 8);
    expect(second).not.toBe(first);
    const arena = new Arena(4096);
    const EBADF = -9;
    expect(addon.ioClose(first)).toBe(EBADF);
    expect(addon.ioAccept(first, 4096)).toBe(EBADF);
    expect(addon.ioInterest(first, 1)).toBe(EBADF);
    expect(addon.ioFinish(first)).toBe(EBADF);
    expect(addon.ioReceive(first, arena.ref(0), 16)).toBe(EBADF);
    expect(addon.ioSend(first, new Float64Array([arena.ref(0), 16]), 1)).toBe(EBADF);
    expect(addon.ioName(first, 0)).toBe('');
    expect(addon.ioAccept(second, 4096)).toBe(-11);
    addon.ioClose(second);
    arena.free();
  });

  it('that are released leave their descriptor open, to the caller, and are closed in every other way', async () => {
    const listener = addon.ioListenTcp('127.0.0.1', 0, 8);
    const address = addon.ioName(listener, 0);
    const client = net.connect(Number(address.split(':')[1]), '127.0.0.1');
    client.on('error', () => undefined);
    let handle = -1;
    await eventually(() => {
      handle = addon.ioAccept(listener, 65536);
      return handle >= 0;
    }, 'the connection is there');
    // Watched when it is released: it must leave the set, for its descriptor lives on.
    expect(addon.ioInterest(handle, 3)).toBe(0);
    const before = openSockets();
    const fd = addon.ioRelease(handle);
    expect(fd).toBeGreaterThan(2);
    expect(openSockets()).toBe(before - 1);
    expect(addon.ioRelease(handle)).toBe(-9);
    expect(addon.ioClose(handle)).toBe(-9);
    const taken = new net.Socket({ fd, readable: true, writable: true });
    taken.write('hello');
    expect(String(await new Promise((resolve) => client.once('data', resolve)))).toBe('hello');
    taken.destroy();
    client.destroy();
    addon.ioClose(listener);
  });

  it('of a unix listener are not released: its file would stay', () => {
    const listener = addon.ioListenUnix(join(dir, 'r'), 0o600, 8);
    expect(addon.ioRelease(listener)).toBe(-9);
    expect(addon.ioClose(listener)).toBe(0);
    expect(existsSync(join(dir, 'r'))).toBe(false);
  });

  it('bytes outside an arena are EFAULT, arguments of the wrong kind a TypeError', () => {
    const socket = addon.ioListenTcp('127.0.0.1', 0, 8);
    const arena = new Arena(4096);
    const EFAULT = -14;
    expect(addon.ioReceive(socket, arena.ref(4090), 16)).toBe(EFAULT);
    expect(addon.ioReceive(socket, arena.ref(0), 0)).toBe(EFAULT);
    expect(addon.ioReceive(socket, 2 ** 51, 16)).toBe(EFAULT);
    expect(addon.ioSend(socket, new Float64Array([arena.ref(4090), 16]), 1)).toBe(EFAULT);
    expect(addon.ioSend(socket, new Float64Array([arena.ref(0), -1]), 1)).toBe(EFAULT);
    expect(addon.ioSend(socket, new Float64Array([arena.ref(0), Number.NaN]), 1)).toBe(EFAULT);
    expect(addon.ioSend(socket, new Float64Array(2), 2)).toBe(-22);
    expect(() => addon.ioReceive(socket, Number.NaN, 16)).toThrow(TypeError);
    expect(() => addon.ioReceive(socket, -1, 16)).toThrow(TypeError);
    expect(() => addon.ioInterest(socket, 4)).toThrow(TypeError);
    expect(() => addon.ioListenUnix('a\0b', 0o600, 8)).toThrow(TypeError);
    arena.free();
    expect(addon.ioReceive(socket, arena.ref(0), 16)).toBe(EFAULT);
    addon.ioClose(socket);
  });
});

describe('the peer of a descriptor', () => {
  it('is a user on a unix socket, and nobody on any other', async () => {
    const path = join(dir, 'p');
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const accepted = new Promise<net.Socket>((resolve) => server.once('connection', resolve));
    const client = net.connect(path);
    const { fd } = ((await accepted) as net.Socket & { _handle: { fd: number } })._handle;
    expect(addon.ioPeerUid(fd)).toBe(process.geteuid?.());
    const file = openSync('/dev/null', 'r');
    expect(addon.ioPeerUid(file)).toBe(-88);
    closeSync(file);
    const tcp = net.connect(Number(test.address.split(':')[1]), '127.0.0.1');
    await new Promise((resolve) => tcp.once('connect', resolve));
    expect(addon.ioPeerUid((tcp as net.Socket & { _handle: { fd: number } })._handle.fd)).toBe(-95);
    tcp.destroy();
    client.destroy();
    await new Promise((resolve) => server.close(resolve));
  });
});

describe('other environments', () => {
  it('have sockets of their own, which end with them', async () => {
    const source = `
      const { parentPort, workerData } = require('node:worker_threads');
      const addon = require(workerData);
      const events = new Float64Array(64);
      const arena = addon.arenaCreate(65536);
      const listener = (addon.ioStart(events, (count) => {
        for (let i = 0; i < count; i++) {
          const handle = events[2 * i];
          if (handle === listener) {
            for (let socket; (socket = addon.ioAccept(listener, 65536)) >= 0; ) addon.ioInterest(socket, 1);
            continue;
          }
          const got = addon.ioReceive(handle, arena.id * 2 ** 32, 65536);
          if (got > 0) addon.ioSend(handle, new Float64Array([arena.id * 2 ** 32, got]), 1);
          else addon.ioClose(handle);
        }
      }), addon.ioListenTcp('127.0.0.1', 0, 8));
      addon.ioInterest(listener, 1);
      globalThis.keep = arena;
      parentPort.postMessage(addon.ioName(listener, 0));
    `;
    const before = openSockets();
    for (let round = 0; round < 5; round++) {
      const worker = new Worker(source, { eval: true, workerData: ADDON_FILE });
      const address = await new Promise<string>((resolve) => worker.once('message', resolve));
      const client = net.connect(Number(address.split(':')[1]), '127.0.0.1');
      client.on('error', () => undefined);
      client.write('hello');
      const echoed = await new Promise((resolve) => client.once('data', resolve));
      expect(String(echoed)).toBe('hello');
      const closed = new Promise((resolve) => client.once('close', resolve));
      await worker.terminate();
      await closed;
      await expectServes(test.address);
    }
    await eventually(() => openSockets() === before, 'all clients are gone');
  });
});
