/** An orderly end: of the server, and of a device under it. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Command, Errno } from '../../src/nbd/wire/constants.js';
import { MemoryDevice } from '../support/memory-device.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { eventually, startTestServer, type TestServer } from '../support/nbd-test-server.js';

let disk: MemoryDevice;
let other: MemoryDevice;
let test: TestServer;
let client: RawClient;
let release: (() => void)[] = [];

beforeEach(async () => {
  release = [];
  disk = new MemoryDevice({ name: 'disk' });
  other = new MemoryDevice({ name: 'other' });
  test = await startTestServer([disk, other]);
  client = await RawClient.serving(test.address, 'disk');
});

afterEach(async () => {
  await client.close();
  await test.stop();
});

function holdDevice(): void {
  disk.delay = () => new Promise<void>((resolve) => release.push(resolve));
}

describe('a server that stops', () => {
  it('answers what is in flight, gives ESHUTDOWN to what comes, then closes', async () => {
    holdDevice();
    const write = client.send(Command.WRITE, 0, 512, { payload: Buffer.alloc(512, 1) });
    await eventually(() => release.length === 1, 'the write is in flight');
    const stopped = test.server.stop();
    const late = client.send(Command.WRITE, 4096, 512, { payload: Buffer.alloc(512, 2) });
    expect(await client.message()).toMatchObject({ cookie: late, error: Errno.ESHUTDOWN });
    const read = client.send(Command.READ, 0, 512);
    expect(await client.message()).toMatchObject({ cookie: read, error: Errno.ESHUTDOWN, simple: false });
    expect(client.isClosed).toBe(false);
    release[0]();
    expect(await client.message()).toMatchObject({ cookie: write, error: Errno.OK });
    await client.closed;
    await stopped;
    expect(disk.clients).toBe(0);
  });

  it('accepts no more connections', async () => {
    await test.server.stop();
    await expect(RawClient.connect(test.address)).rejects.toThrow(/ECONNREFUSED/);
  });

  it('does not wait for a payload that never comes, nor past its deadline for a device', async () => {
    client.send(Command.WRITE, 0, 8192, { payload: Buffer.alloc(4096) });
    const silent = await RawClient.connect(test.address);
    const stuck = await RawClient.serving(test.address, 'disk');
    holdDevice();
    stuck.send(Command.READ, 0, 512);
    await eventually(() => release.length === 1, 'the read is in flight');
    const begin = performance.now();
    await test.server.stop(300);
    expect(performance.now() - begin).toBeLessThan(2000);
    await Promise.all([client.closed, silent.closed, stuck.closed]);
    // Its memory stays pinned until the device lets go of it.
    expect(test.server.stats().memory.smallUsed).toBe(1);
    release[0]();
    await eventually(() => test.server.stats().memory.bytes === 0, 'all memory is given back');
    expect(disk.clients).toBe(0);
  });

  it('stops once, however often it is asked', async () => {
    await Promise.all([test.server.stop(), test.server.stop()]);
  });
});

describe('a device that goes away', () => {
  it('takes its clients with it, in order, and no others', async () => {
    holdDevice();
    const neighbour = await RawClient.serving(test.address, 'other');
    const cookie = client.send(Command.READ, 0, 512);
    await eventually(() => release.length === 1, 'the read is in flight');
    disk.closeClients('the key was revoked');
    const late = client.send(Command.FLUSH, 0, 0);
    expect(await client.message()).toMatchObject({ cookie: late, error: Errno.ESHUTDOWN });
    release[0]();
    expect(await client.message()).toMatchObject({ cookie, error: Errno.OK });
    await client.closed;
    await eventually(() => disk.clients === 0, 'the device is left');
    expect((await neighbour.readAt(0, 512)).error).toBe(Errno.OK);
    await neighbour.close();
  });

  it('leaves nothing of its data in buffers that wait for reuse', async () => {
    const secret = Buffer.alloc(4096, 'secret');
    await client.writeAt(0, secret);
    expect((await client.readAt(0, 4096)).data.equals(secret)).toBe(true);
    disk.closeClients('stopped');
    await client.closed;
    const chunks = Array.from({ length: 64 }, () => test.server.pool.takeSmall(false)!);
    for (const { arena, start, end } of chunks) {
      expect(Buffer.from(arena.bytes.subarray(start, end)).includes('secret')).toBe(false);
    }
    for (const chunk of chunks) chunk.release();
  });
});
