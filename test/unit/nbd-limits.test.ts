/** Memory, slots and time stay bounded, whatever clients do. */
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  ARENA_CHUNK_BYTES,
  CONNECTIONS_MAX,
  HANDSHAKE_TIMEOUT_MS,
  HANDSHAKES_PER_TURN_MAX,
  INPUT_SHARE_MAX,
  LARGE_CHUNKS_MAX,
  LINGER_MS,
  LIST_ENTRIES_PER_TURN_MAX,
  RECEIVE_STALL_SHORT_OF_MEMORY_MS,
  REQUEST_BYTES_MAX,
  REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX,
  SEND_STALL_MS,
  SEND_STALL_SHORT_OF_MEMORY_MS,
  SHARED_BYTES_IN_FLIGHT_MAX,
  SMALL_CHUNK_BYTES,
  SMALL_CHUNKS_MAX,
} from '../../src/base/limits.js';
import { addon } from '../../src/native/addon.js';
import { viewOf } from '../../src/nbd/wire/bytes.js';
import { Command, CommandFlag, Errno, Option, REQUEST_HEADER_BYTES } from '../../src/nbd/wire/constants.js';
import { encodeOption } from '../../src/nbd/wire/option.js';
import { encodeRequest } from '../../src/nbd/wire/request.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { exportsOf, MemoryDevice } from '../support/memory-device.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { eventually, startTestServer, type TestServer } from '../support/nbd-test-server.js';
import { SkippingClock } from '../support/skipping-clock.js';

const MiB = 1024 * 1024;
const SIZE = 64 * MiB;

let disk: MemoryDevice;
let clock: SkippingClock;
let test: TestServer;
const clients: RawClient[] = [];

beforeEach(async () => {
  clock = new SkippingClock();
  disk = new MemoryDevice({ name: 'disk', sizeBytes: SIZE });
  test = await startTestServer([disk], { clock });
});

afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()));
  await test.stop();
});

async function connect(): Promise<RawClient> {
  const client = await RawClient.connect(test.address);
  clients.push(client);
  return client;
}

async function serving(options: { structured?: boolean } = {}): Promise<RawClient> {
  const client = await RawClient.serving(test.address, 'disk', options);
  clients.push(client);
  return client;
}

/** A large chunk of the server's, to write from. */
function pinned() {
  const chunk = test.server.pool.takeLarge();
  if (chunk === undefined) throw new Error('no chunk');
  return { arena: chunk.arena, release: () => chunk.release() };
}

/** Asks for much and reads nothing. */
async function slowReader(requests: number, flags = 0): Promise<RawClient> {
  const client = await serving();
  client.socket.pause();
  for (let i = 0; i < requests; i++) client.send(Command.READ, 0, REQUEST_BYTES_MAX, { flags });
  return client;
}

describe('the handshake', () => {
  it('500 connections that never speak cost no buffer, do not disturb, and are dropped in time', async () => {
    await test.stop();
    test = await startTestServer([disk], { clock, limits: { connectionsPerAddress: CONNECTIONS_MAX } });
    for (let i = 0; i < 500; i++) await connect();
    await eventually(() => test.server.stats().connections === 500, 'all are accepted');
    expect(test.server.stats().memory).toMatchObject({ smallUsed: 0, largeUsed: 0 });
    const polite = await serving();
    expect((await polite.readAt(0, 4096)).error).toBe(Errno.OK);
    clock.skip(HANDSHAKE_TIMEOUT_MS + 1);
    await eventually(() => test.server.stats().connections === 1, 'the silent ones are gone');
    expect((await polite.readAt(0, 4096)).error).toBe(Errno.OK);
    expect(test.server.stats().dropped).toBe(500);
  });

  it('one that trickles options is dropped all the same', async () => {
    const client = await connect();
    await client.greet();
    await client.option(Option.LIST);
    clock.skip(HANDSHAKE_TIMEOUT_MS + 1);
    await client.closed;
  });

  it('an option with garbage behind its magic costs that connection only', async () => {
    const client = await connect();
    await client.greet();
    client.write(Buffer.from('IHAVEOPT'));
    client.write(Buffer.alloc(8, 0xff));
    const other = await serving();
    expect((await other.readAt(0, 512)).error).toBe(Errno.OK);
  });

  it('clients that ask for lists and take none have a small chunk each, and hold up nobody', async () => {
    await test.stop();
    const entries = Array.from({ length: 50_000 }, (_, i) => ({ name: `disk${i}`, description: 'long' }));
    let looked = 0;
    function* list() {
      for (const entry of entries) {
        looked += 1;
        yield entry;
      }
    }
    const exportsFor = () => ({ ...exportsOf(disk), list });
    test = await startTestServer([disk], { clock, exportsFor });
    const flood = Buffer.concat(new Array(250).fill(encodeOption(Option.LIST, Buffer.alloc(0))));
    for (let i = 0; i < 20; i++) {
      const client = await connect();
      await client.greet();
      client.socket.pause();
      client.write(flood);
    }
    await eventually(() => looked > entries.length, 'they are being answered');
    const polite = await serving();
    let looks = looked;
    for (let i = 0; i < 20; i++) {
      expect((await polite.readAt(0, 4096)).error).toBe(Errno.OK);
      // In each turn of the event loop some of them get a part; a request takes a few turns.
      expect(looked - looks).toBeLessThan(32 * HANDSHAKES_PER_TURN_MAX * LIST_ENTRIES_PER_TURN_MAX);
      looks = looked;
    }
    let stood = 0;
    await eventually(() => {
      const still = looked === stood;
      stood = looked;
      return still;
    }, 'what the kernel takes of it is with the kernel');
    const { memory } = test.server.stats();
    expect(memory.largeUsed).toBe(0);
    // For what they sent, and for what they do not take.
    expect(memory.smallUsed).toBeLessThanOrEqual(2 * 20 + 2);
  });
});

describe('connections', () => {
  it('above the maximum are closed at once, and a slot comes back when one leaves', async () => {
    await test.stop();
    test = await startTestServer([disk], { limits: { connections: 3 } });
    const first = await serving();
    await serving();
    await serving();
    const fourth = await connect();
    await fourth.closed;
    expect(test.server.stats().refused).toBe(1);
    await first.close();
    await eventually(() => test.server.stats().connections === 2, 'the slot is back');
    expect((await (await serving()).readAt(0, 512)).error).toBe(Errno.OK);
  });

  it('of one address leave places for others, and its handshakes leave some to those behind it', async () => {
    await test.stop();
    test = await startTestServer([disk], { limits: { connections: 8, connectionsPerAddress: 6 } });
    const own = await test.server.listen({
      kind: 'unix',
      path: join(temporaryDirectory(), 's'),
      mode: 0o600,
    });
    const first = await serving();
    const second = await serving();
    const silent: RawClient[] = [];
    for (let i = 0; i < 6; i++) silent.push(await connect());
    // Half of the six may be in the handshake: each that comes has the place of the oldest one.
    await Promise.all(silent.slice(0, 3).map(({ closed }) => closed));
    expect(silent.slice(3).some(({ isClosed }) => isClosed)).toBe(false);
    for (let i = 0; i < 4; i++) expect((await (await serving()).readAt(0, 512)).error).toBe(Errno.OK);
    const seventh = await connect();
    await seventh.closed;
    expect(test.server.stats()).toMatchObject({ connections: 6, refused: 1 });
    expect(first.isClosed || second.isClosed).toBe(false);
    // A unix socket has no address.
    const other = await RawClient.serving(own, 'disk');
    clients.push(other);
    expect((await other.readAt(0, 512)).error).toBe(Errno.OK);
  });

  it('that break at any point give their slot, their memory and their device back', async () => {
    const release: (() => void)[] = [];
    disk.delay = () => new Promise<void>((resolve) => release.push(resolve));
    const client = await serving();
    client.send(Command.WRITE, 0, 512, { payload: Buffer.alloc(512) });
    await eventually(() => test.server.clients()[0]?.inFlight === 1, 'the write is in flight');
    const half = await serving();
    half.send(Command.WRITE, 0, 2 * MiB, { payload: Buffer.alloc(MiB) });
    client.socket.resetAndDestroy();
    half.socket.resetAndDestroy();
    await eventually(() => test.server.stats().connections === 0, 'the slots are back');
    expect(disk.clients).toBe(2);
    for (const done of release) done();
    await eventually(() => disk.clients === 0, 'the device hears of it when its work is done');
    expect(test.server.stats().memory).toMatchObject({ smallUsed: 0, largeUsed: 0 });
  });
});

describe('requests in flight', () => {
  it('are at most so many on one connection; the rest waits and is answered', async () => {
    const release: (() => void)[] = [];
    disk.delay = () => new Promise<void>((resolve) => release.push(resolve));
    const client = await serving();
    const total = 3 * REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX;
    for (let i = 0; i < total; i++) client.send(Command.READ, 0, 512);
    await eventually(() => release.length === REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX, 'the limit is reached');
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(release.length).toBe(REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX);
    expect(test.server.clients()[0].inFlight).toBe(REQUESTS_IN_FLIGHT_PER_CONNECTION_MAX);
    disk.delay = () => undefined;
    for (const done of release) done();
    for (let i = 0; i < total; i++) expect((await client.message()).error).toBe(Errno.OK);
  });

  it('writes that the device does not finish stop the reading of their socket', async () => {
    disk.delay = () => new Promise<void>(() => undefined);
    const client = await serving();
    const payload = Buffer.alloc(8 * MiB);
    for (let i = 0; i < 32; i++) client.send(Command.WRITE, 0, payload.length, { payload });
    await new Promise((resolve) => setTimeout(resolve, 300));
    // 64 MiB in flight, what the chunks lose at their ends, and the one being received.
    expect(test.server.stats().memory.bytes).toBeLessThanOrEqual(80 * MiB);
    const other = await serving();
    disk.delay = () => undefined;
    expect((await other.readAt(0, 512)).error).toBe(Errno.OK);
  });
});

describe('slow readers', () => {
  it('hold a bounded part of memory and are dropped when they take nothing', async () => {
    const { arena, release } = pinned();
    disk.write(arena, 0, 0, 2 * MiB);
    release();
    const slow = await slowReader(20);
    await eventually(() => test.server.stats().requests.read > 0, 'requests arrived');
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(test.server.stats().memory.bytes).toBeLessThanOrEqual(24 * MiB);
    clock.skip(SEND_STALL_MS + 1);
    await new Promise((resolve) => setTimeout(resolve, 600));
    clock.skip(SEND_STALL_MS + 1);
    await eventually(() => test.server.stats().connections === 0, 'it is dropped');
    await slow.close();
  });

  it('with many long reads at a device that is slow too hold no more than the limit of a connection', async () => {
    const { arena, release } = pinned();
    disk.write(arena, 0, 0, 2 * MiB);
    release();
    let reads = 0;
    disk.delay = () => {
      reads += 1;
      return new Promise<void>(() => undefined);
    };
    await slowReader(250);
    await eventually(() => reads > 0, 'the device is asked');
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(test.server.stats().memory.bytes).toBeLessThanOrEqual(72 * MiB);
  });

  it('together cannot take all memory from the others for long', async () => {
    // Where the polite one reads: holes would be told without memory.
    const { arena, release } = pinned();
    disk.write(arena, 0, SIZE - 2 * MiB, 2 * MiB);
    release();
    // Gathered reads hold the most: 32 MiB each, before a byte is sent.
    for (let i = 0; i < 12; i++) await slowReader(4, CommandFlag.DF);
    await eventually(() => test.server.stats().memory.waiting > 0, 'memory is short');
    const { memory } = test.server.stats();
    expect(memory.largeUsed).toBeLessThanOrEqual(LARGE_CHUNKS_MAX);
    const polite = await serving();
    // Small requests are served meanwhile.
    expect((await polite.readAt(0, 4096)).error).toBe(Errno.OK);
    expect(await polite.writeAt(0, Buffer.alloc(MiB))).toBe(Errno.OK);
    // So are longer ones that may come in parts.
    expect((await polite.readAt(SIZE - 2 * MiB, MiB)).error).toBe(Errno.OK);
    // Nobody had to go for that.
    expect(test.server.stats().dropped).toBe(0);
    // A large one waits, and gets its turn when those who stall are dropped.
    const large = polite.readAt(0, REQUEST_BYTES_MAX, CommandFlag.DF);
    await new Promise((resolve) => setTimeout(resolve, 600));
    for (let i = 0; i < 3; i++) {
      clock.skip(SEND_STALL_SHORT_OF_MEMORY_MS + 1);
      await new Promise((resolve) => setTimeout(resolve, 600));
    }
    expect((await large).error).toBe(Errno.OK);
    expect(test.server.stats().memory.bytes).toBeLessThanOrEqual(256 * MiB);
  });
});

describe('while memory is short', () => {
  it('a read in parts goes on behind a hole', async () => {
    const client = await serving();
    const block = Buffer.alloc(64 * 1024, 7);
    for (const at of [0, 2, 5]) await client.writeAt(at * block.length, block);
    const taken = [];
    for (let chunk = test.server.pool.takeLarge(); chunk !== undefined; chunk = test.server.pool.takeLarge())
      taken.push(chunk);
    const { error, data } = await client.readAt(0, 8 * block.length);
    for (const chunk of taken) chunk.release();
    expect(error).toBe(Errno.OK);
    const expected = [1, 0, 1, 0, 0, 1, 0, 0].map((there) => (there ? block : Buffer.alloc(block.length)));
    expect(data.equals(Buffer.concat(expected))).toBe(true);
  });
});

describe('after a stop', () => {
  it('no arena, socket or client is left', async () => {
    const arenas = addon.arenaStats().arenas;
    const server = await startTestServer([disk], { clock });
    const client = await RawClient.serving(server.address, 'disk');
    await client.writeAt(0, Buffer.alloc(8 * MiB, 1));
    expect(addon.arenaStats().arenas).toBeGreaterThan(arenas);
    const stopped = server.stop();
    await new Promise((resolve) => setTimeout(resolve, 50));
    clock.skip(LINGER_MS + 1);
    await stopped;
    await client.closed;
    expect(addon.arenaStats().arenas).toBe(arenas);
    expect(disk.clients).toBe(0);
  });
});

describe('a client that is slow or silent', () => {
  const limits = { receiveStallMs: 10_000, idleMs: 60_000 };
  const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

  /** Lets time pass over two sweeps: the first may still see progress. */
  async function pass(ms: number): Promise<void> {
    for (let i = 0; i < 2; i++) {
      clock.skip(ms);
      await pause(600);
    }
  }

  beforeEach(async () => {
    await test.stop();
    test = await startTestServer([disk], { clock, limits });
  });

  it('is dropped in the middle of a header or a payload, and gives back what it held', async () => {
    const header = await serving();
    header.write(Buffer.from([0x25, 0x60, 0x95, 0x13, 0]));
    const payload = await serving();
    payload.send(Command.WRITE, 0, MiB, { payload: Buffer.alloc(100_000) });
    await pause(100);
    expect(test.server.stats().connections).toBe(2);
    await pass(limits.receiveStallMs + 1);
    await Promise.all([header.closed, payload.closed]);
    expect(test.server.stats()).toMatchObject({ dropped: 2, memory: { smallUsed: 0, largeUsed: 0 } });
  });

  it('is not dropped while it goes on, however slowly', async () => {
    const client = await serving();
    const data = Buffer.alloc(8192, 3);
    client.send(Command.WRITE, 0, data.length, { payload: data.subarray(0, 1000), cookie: 7 });
    for (let at = 1000; at < data.length; at += 2000) {
      await pause(300);
      clock.skip(limits.receiveStallMs / 2);
      client.write(data.subarray(at, at + 2000));
    }
    expect((await client.answer(7)).error).toBe(Errno.OK);
  });

  it('is not dropped while the device lets it wait', async () => {
    const release: (() => void)[] = [];
    disk.delay = () => new Promise((resolve) => release.push(resolve));
    const client = await serving();
    const cookie = client.send(Command.READ, 0, 4096);
    await eventually(() => release.length === 1, 'the read is under way');
    await pass(limits.idleMs + 1);
    release[0]();
    expect((await client.answer(cookie)).error).toBe(Errno.OK);
  });

  it('is let go when it asks for nothing, where that is configured', async () => {
    const silent = await serving();
    const busy = await serving();
    await pass(limits.idleMs / 4);
    expect((await busy.readAt(0, 512)).error).toBe(Errno.OK);
    await pass(limits.idleMs / 2 - 1000);
    await silent.closed;
    expect(busy.isClosed).toBe(false);
    await test.stop();
    test = await startTestServer([disk], { clock });
    const patient = await serving();
    await pass(30 * 24 * 3_600_000);
    expect((await patient.readAt(0, 512)).error).toBe(Errno.OK);
  });
});

describe('what arrives in part', () => {
  const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  /** Valid requests, tiny and many: whoever sends so much at once gets a large chunk for what comes next. */
  const burst = Buffer.alloc(1024 * REQUEST_HEADER_BYTES);
  for (let i = 0; i < 1024; i++) {
    const header = { flags: 0, type: Command.READ, cookieHigh: 0, cookieLow: i, offset: 0, length: 0 };
    encodeRequest(viewOf(burst), i * REQUEST_HEADER_BYTES, header);
  }
  const chunks = 4;

  beforeEach(async () => {
    await test.stop();
    const bytesInFlightTotal = SMALL_CHUNKS_MAX * SMALL_CHUNK_BYTES + chunks * ARENA_CHUNK_BYTES;
    test = await startTestServer([disk], { clock, limits: { bytesInFlightTotal, receiveStallMs: 10_000 } });
  });

  /** Sends a burst, and `rest` behind it once that is answered. */
  async function after(rest: Uint8Array): Promise<RawClient> {
    const client = await serving({ structured: false });
    client.write(burst);
    for (let i = 0; i < 1024; i++) await client.message();
    client.write(rest);
    return client;
  }

  it('of a header takes no large chunk from the others', async () => {
    for (let i = 0; i < 2 * chunks; i++) await after(burst.subarray(0, 5));
    const polite = await serving();
    const read = polite.readAt(0, MiB, CommandFlag.DF);
    await eventually(() => test.server.stats().requests.read === 2 * chunks * 1024 + 1, 'it has its turn');
    expect((await read).error).toBe(Errno.OK);
    await eventually(() => test.server.stats().memory.largeUsed === 0, 'all are given back');
  });

  it('of a header is to be finished in time, however steadily it comes', async () => {
    const client = await after(burst.subarray(0, 5));
    for (let at = 5; at < 20 && !client.isClosed; at++) {
      await pause(300);
      clock.skip(4000);
      client.write(burst.subarray(at, at + 1));
    }
    expect(client.isClosed).toBe(true);
    expect(test.server.stats().dropped).toBe(1);
  });

  it('of a payload keeps a large chunk only while nobody waits for it, or while it goes on well', async () => {
    const begun = Buffer.concat([Buffer.alloc(REQUEST_HEADER_BYTES), Buffer.alloc(50_000)]);
    const header = { flags: 0, type: Command.WRITE, cookieHigh: 0, cookieLow: 1, offset: 0, length: MiB };
    encodeRequest(viewOf(begun), 0, header);
    const slow: RawClient[] = [];
    const ofInput = Math.floor(chunks * INPUT_SHARE_MAX);
    for (let i = 0; i < chunks; i++) slow.push(await after(begun));
    await eventually(() => test.server.stats().memory.largeUsed === ofInput, 'so many have a large chunk');
    const others = Array.from({ length: chunks - ofInput }, pinned);
    const polite = await serving();
    const read = polite.readAt(0, MiB, CommandFlag.DF);
    await eventually(() => test.server.stats().memory.waiting === 1, 'memory is short');
    for (let i = 0; i < 4; i++) {
      await pause(300);
      clock.skip(RECEIVE_STALL_SHORT_OF_MEMORY_MS / 2);
      for (const client of slow) if (!client.isClosed) client.write(Buffer.alloc(1));
    }
    await eventually(() => test.server.stats().dropped > 0, 'who is in the way is dropped');
    expect((await read).error).toBe(Errno.OK);
    for (const { release } of others) release();
  });
});

describe('fairness', () => {
  it('a client with 128 requests of 4 MiB lets small ones of another one in between', async () => {
    for (let at = 0; at < SIZE; at += 4 * MiB) {
      const { arena, release } = pinned();
      await disk.write(arena, 0, at, 2 * MiB);
      await disk.write(arena, 0, at + 2 * MiB, 2 * MiB);
      release();
    }
    const greedy = await serving();
    let sent = 0;
    const ask = () => {
      greedy.send(Command.READ, (4 * MiB * sent) % SIZE, 4 * MiB);
      sent += 1;
    };
    for (let i = 0; i < 128; i++) ask();
    const polite = await serving();
    await polite.readAt(0, 4096);
    greedy.socket.removeAllListeners('data');
    let taken = 0;
    greedy.socket.on('data', (bytes) => {
      taken += bytes.length;
      while (sent * 4 * MiB < taken + 128 * 4 * MiB) ask();
    });
    await eventually(() => taken > 16 * MiB, 'the greedy one is in full flow');
    await bothAtWork(polite);
    const before = taken;
    const rounds = 100;
    for (let i = 0; i < rounds; i++) expect((await polite.readAt(0, 4096)).error).toBe(Errno.OK);
    // What the server reads for the greedy one in its turn: some pieces of a request, not whole ones.
    expect((taken - before) / rounds).toBeLessThan(1.5 * MiB);
    expect(taken).toBeGreaterThan(before);
  });

  it('a client has little in flight at the device while another one is at work', async () => {
    const greedy = await serving();
    const polite = await serving();
    await bothAtWork(greedy, polite);
    disk.delay = (operation) => (operation === 'write' ? new Promise<void>(() => undefined) : undefined);
    const payload = Buffer.alloc(2 * MiB);
    for (let i = 0; i < 16; i++) greedy.send(Command.WRITE, 0, payload.length, { payload });
    await bothAtWork(polite);
    const { largeUsed, smallUsed } = test.server.stats().memory;
    const bytes = largeUsed * ARENA_CHUNK_BYTES + smallUsed * SMALL_CHUNK_BYTES;
    // And the chunks that what is in flight begins and ends in.
    expect(bytes).toBeLessThanOrEqual(SHARED_BYTES_IN_FLIGHT_MAX + 3 * ARENA_CHUNK_BYTES);
  });

  it('clients with large requests alone do not slow each other down further', async () => {
    const clients = [await serving(), await serving()];
    await untilSwept(clients, MiB);
    disk.delay = (operation) => (operation === 'write' ? new Promise<void>(() => undefined) : undefined);
    const payload = Buffer.alloc(2 * MiB);
    for (let i = 0; i < 4; i++)
      for (const client of clients) client.send(Command.WRITE, 0, payload.length, { payload });
    const used = (): number => test.server.stats().memory.largeUsed;
    await eventually(() => used() >= 8, 'the writes of both are at the device');
  });

  /** Until the sweep has seen that these and others are at work. */
  function bothAtWork(...working: RawClient[]): Promise<void> {
    return untilSwept(working, 4096);
  }

  async function untilSwept(working: readonly RawClient[], length: number): Promise<void> {
    const end = performance.now() + 600;
    while (performance.now() < end) {
      for (const client of working) expect((await client.readAt(0, length)).error).toBe(Errno.OK);
    }
  }
});
