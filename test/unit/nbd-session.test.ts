/** The transmission phase, seen by a client that sends what it likes. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SealbdError } from '../../src/base/errors.js';
import { PAYLOAD_DRAIN_BYTES_MAX, REQUEST_BYTES_MAX } from '../../src/base/limits.js';
import { Chunk, Command, CommandFlag, Errno } from '../../src/nbd/wire/constants.js';
import { MemoryDevice } from '../support/memory-device.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { eventually, startTestServer, type TestServer } from '../support/nbd-test-server.js';
import { SeededRandom, testSeed } from '../support/seeded-random.js';

const MiB = 1024 * 1024;
const SIZE = 64 * MiB;
const random = new SeededRandom(testSeed('nbd-session'));

let disk: MemoryDevice;
let snapshot: MemoryDevice;
let test: TestServer;
let client: RawClient;

beforeEach(async () => {
  disk = new MemoryDevice({ name: 'disk', sizeBytes: SIZE });
  snapshot = new MemoryDevice({ name: 'snap', sizeBytes: SIZE, readOnly: true });
  test = await startTestServer([disk, snapshot]);
  client = await RawClient.serving(test.address, 'disk', { meta: true });
});

afterEach(async () => {
  await client.close();
  await test.stop();
});

/** The stream is in step if the next request is answered. */
async function expectInStep(on = client): Promise<void> {
  expect((await on.readAt(0, 512)).error).toBe(Errno.OK);
}

describe('reads and writes', () => {
  it('of any offset and length return what was written', async () => {
    const shadow = Buffer.alloc(8 * MiB);
    for (let i = 0; i < 200; i++) {
      const length = 1 + random.below(i % 10 === 0 ? 3 * MiB : 20_000);
      const offset = random.below(shadow.length - length);
      const payload = random.bytes(length);
      payload.copy(shadow, offset);
      expect(await client.writeAt(offset, payload)).toBe(Errno.OK);
      const at = random.below(shadow.length - 70_000);
      const { data } = await client.readAt(at, 70_000);
      expect(data.equals(shadow.subarray(at, at + 70_000)), `read at ${at}`).toBe(true);
    }
    const whole = await client.readAt(0, shadow.length);
    expect(whole.data.equals(shadow)).toBe(true);
  });

  it('a payload that arrives byte by byte is written whole', async () => {
    const payload = random.bytes(9000);
    const cookie = client.send(Command.WRITE, 4000, payload.length);
    for (let at = 0; at < payload.length; at += 100) {
      client.write(payload.subarray(at, at + 100));
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect((await client.answer(cookie)).error).toBe(Errno.OK);
    expect((await client.readAt(4000, 9000)).data.equals(payload)).toBe(true);
  });

  it('a 32 MiB write and a 32 MiB read work, in every form of reply', async () => {
    const payload = random.bytes(REQUEST_BYTES_MAX);
    expect(await client.writeAt(1, payload)).toBe(Errno.OK);
    const fragmented = await client.readAt(1, REQUEST_BYTES_MAX);
    expect(fragmented.messages.length).toBeGreaterThan(1);
    expect(fragmented.data.equals(payload)).toBe(true);
    const whole = await client.readAt(1, REQUEST_BYTES_MAX, CommandFlag.DF);
    expect(whole.messages.length).toBe(1);
    expect(whole.data.equals(payload)).toBe(true);
    const plain = await RawClient.serving(test.address, 'disk', { structured: false });
    const simple = await plain.readAt(1, REQUEST_BYTES_MAX);
    expect(simple.messages[0].simple).toBe(true);
    expect(simple.data.equals(payload)).toBe(true);
    await plain.close();
  });

  it('of no bytes succeed', async () => {
    expect((await client.readAt(0, 0)).messages).toMatchObject([{ type: Chunk.NONE, done: true }]);
    expect(await client.writeAt(SIZE, Buffer.alloc(0))).toBe(Errno.OK);
    for (const type of [Command.TRIM, Command.WRITE_ZEROES, Command.CACHE]) {
      expect((await client.call(type, 0, 0)).error).toBe(Errno.OK);
    }
    await expectInStep();
  });

  it('long reads of every kind, asked for in one go, are all answered', async () => {
    for (const [length, flags, count] of [
      [8 * MiB, CommandFlag.DF, 20],
      [MiB, 0, 150],
      [60_000, 0, 1500],
    ]) {
      const cookies = new Set<number>();
      for (let i = 0; i < count; i++) cookies.add(client.send(Command.READ, i * 4096, length, { flags }));
      while (cookies.size > 0) {
        const { cookie, done, error } = await client.message();
        expect(error).toBe(Errno.OK);
        if (done) expect(cookies.delete(cookie)).toBe(true);
      }
    }
  });

  it('a batch of pipelined requests is answered, each with its cookie', async () => {
    const cookies = [];
    for (let i = 0; i < 300; i++) {
      const payload = Buffer.alloc(4096, i);
      cookies.push(client.send(Command.WRITE, i * 4096, 4096, { payload }));
      cookies.push(client.send(Command.READ, i * 4096, 4096));
    }
    const answered = [];
    for (let i = 0; i < cookies.length; i++) answered.push((await client.message()).cookie);
    expect(answered).toEqual(cookies);
  });
});

describe('refusals keep the stream in step', () => {
  it('past the end: EINVAL for a READ, ENOSPC for a WRITE, whose payload is read over', async () => {
    expect((await client.readAt(SIZE - 100, 200)).error).toBe(Errno.EINVAL);
    expect(await client.writeAt(SIZE - 100, Buffer.alloc(200))).toBe(Errno.ENOSPC);
    expect((await client.readAt(SIZE - 100, 100)).data).toEqual(Buffer.alloc(100));
    await expectInStep();
  });

  it('a read-only export gives EPERM and drains the payload', async () => {
    const reader = await RawClient.serving(test.address, 'snap');
    expect(await reader.writeAt(0, Buffer.alloc(MiB, 1))).toBe(Errno.EPERM);
    expect((await reader.call(Command.TRIM, 0, 4096)).error).toBe(Errno.EPERM);
    expect((await reader.call(Command.WRITE_ZEROES, 0, 4096)).error).toBe(Errno.EPERM);
    await expectInStep(reader);
    await reader.close();
  });

  it('a payload above the largest request gives EINVAL and is drained', async () => {
    expect(await client.writeAt(0, Buffer.alloc(REQUEST_BYTES_MAX + 1))).toBe(Errno.EINVAL);
    await expectInStep();
  });

  it('an absurd payload length gives EINVAL and costs the connection', async () => {
    const cookie = client.send(Command.WRITE, 0, 0, { length: PAYLOAD_DRAIN_BYTES_MAX + 1 });
    expect((await client.answer(cookie)).error).toBe(Errno.EINVAL);
    await client.closed;
  });

  it('an unknown command and an unknown flag give EINVAL', async () => {
    expect((await client.call(12, 0, 512)).error).toBe(Errno.EINVAL);
    expect((await client.readAt(0, 512, CommandFlag.REQ_ONE)).error).toBe(Errno.EINVAL);
    expect(await client.writeAt(0, Buffer.alloc(512), 1 << 9)).toBe(Errno.EINVAL);
    await expectInStep();
  });

  it('garbage closes that connection only', async () => {
    const other = await RawClient.serving(test.address, 'disk');
    client.write(random.bytes(28));
    await client.closed;
    await expectInStep(other);
    await other.close();
  });
});

describe('structured replies', () => {
  it('a READ never gets a simple reply, not even for EINVAL', async () => {
    for (const { error, messages } of [await client.readAt(SIZE, 1), await client.readAt(0, 512, 1 << 12)]) {
      expect(error).toBe(Errno.EINVAL);
      expect(messages.every(({ simple }) => !simple)).toBe(true);
    }
  });

  it('without them a READ gets nothing else', async () => {
    const plain = await RawClient.serving(test.address, 'disk', { structured: false });
    expect((await plain.readAt(0, 4096)).messages).toMatchObject([{ simple: true, error: 0 }]);
    expect((await plain.readAt(SIZE, 1)).messages).toMatchObject([{ simple: true, error: Errno.EINVAL }]);
    await expectInStep(plain);
    await plain.close();
  });

  it('DF reads of 64 KiB come in one chunk, holes included', async () => {
    await client.writeAt(8192, Buffer.alloc(4096, 9));
    const { messages, data } = await client.readAt(0, 65_536, CommandFlag.DF);
    expect(messages).toMatchObject([{ type: Chunk.OFFSET_DATA, done: true }]);
    expect(data.subarray(8192, 12_288)).toEqual(Buffer.alloc(4096, 9));
  });

  it('a long read tells holes as holes, and its chunks cover the range without overlap', async () => {
    await client.writeAt(MiB, Buffer.alloc(MiB, 5));
    const { messages, data } = await client.readAt(1000, 4 * MiB);
    let at = 1000;
    for (const { type, offset, hole, data: part } of messages) {
      expect(offset).toBe(at);
      at += type === Chunk.OFFSET_HOLE ? hole : part.length;
    }
    expect(at).toBe(1000 + 4 * MiB);
    expect(messages.filter(({ type }) => type === Chunk.OFFSET_HOLE).length).toBe(2);
    expect(messages.filter(({ done }) => done).length).toBe(1);
    expect(data.subarray(MiB - 1000, 2 * MiB - 1000).equals(Buffer.alloc(MiB, 5))).toBe(true);
  });

  it('DONE is never set on a chunk that can still fail: an error in the last piece comes after the others', async () => {
    await client.writeAt(0, Buffer.alloc(4 * MiB, 1));
    disk.fault = (operation, offset) =>
      operation === 'read' && offset >= 3 * MiB
        ? new SealbdError('EIO', 'block is damaged', { deviceOffset: 3 * MiB + 4096 })
        : undefined;
    const { messages } = await client.readAt(0, 4 * MiB);
    expect(messages.map(({ done }) => done)).toEqual([false, false, false, true]);
    expect(messages.at(-1)).toMatchObject({
      type: Chunk.ERROR_OFFSET,
      error: Errno.EIO,
      errorOffset: 3 * MiB + 4096,
    });
    disk.fault = () => undefined;
    await expectInStep();
  });

  it('an error whose offset is unknown, or outside the request, is told without one', async () => {
    for (const error of [
      new SealbdError('EIO', 'x'),
      new SealbdError('EIO', 'x', { deviceOffset: 12 * MiB }),
    ]) {
      disk.fault = () => error;
      const { messages } = await client.readAt(0, 4096);
      expect(messages).toMatchObject([{ type: Chunk.ERROR, error: Errno.EIO, done: true }]);
    }
  });

  it('a simple read that fails anywhere sends no data', async () => {
    const plain = await RawClient.serving(test.address, 'disk', { structured: false });
    disk.fault = (operation, offset) =>
      operation === 'read' && offset >= 2 * MiB ? new SealbdError('EIO', 'damaged') : undefined;
    expect((await plain.readAt(0, 8 * MiB)).messages).toMatchObject([{ simple: true, error: Errno.EIO }]);
    disk.fault = () => undefined;
    await expectInStep(plain);
    await plain.close();
  });
});

describe('block status', () => {
  it('only the last extent may pass the request, and none does; REQ_ONE gives one', async () => {
    await client.writeAt(4096, Buffer.alloc(8192, 1));
    const all = await client.call(Command.BLOCK_STATUS, 100, 20_000);
    expect(all.messages[0].extents).toEqual([
      { length: 3996, state: 3 },
      { length: 8192, state: 0 },
      { length: 7812, state: 3 },
    ]);
    const one = await client.call(Command.BLOCK_STATUS, 100, 20_000, { flags: CommandFlag.REQ_ONE });
    expect(one.messages[0].extents).toEqual([{ length: 3996, state: 3 }]);
    const inside = await client.call(Command.BLOCK_STATUS, 5000, 100, { flags: CommandFlag.REQ_ONE });
    expect(inside.messages[0].extents).toEqual([{ length: 100, state: 0 }]);
  });

  it('without a selected context gives EINVAL', async () => {
    const other = await RawClient.serving(test.address, 'disk');
    expect((await other.call(Command.BLOCK_STATUS, 0, 4096)).error).toBe(Errno.EINVAL);
    await expectInStep(other);
    await other.close();
  });
});

describe('trim and zero', () => {
  it('TRIM rounds inward to whole blocks, which then read as zeros', async () => {
    await client.writeAt(0, Buffer.alloc(16_384, 7));
    expect((await client.call(Command.TRIM, 100, 12_000)).error).toBe(Errno.OK);
    const { data } = await client.readAt(0, 16_384);
    expect(data.subarray(0, 4096)).toEqual(Buffer.alloc(4096, 7));
    expect(data.subarray(4096, 8192)).toEqual(Buffer.alloc(4096));
    expect(data.subarray(12_288)).toEqual(Buffer.alloc(4096, 7));
  });

  it('WRITE_ZEROES covers its exact range, with NO_HOLE and FAST_ZERO as well', async () => {
    for (const flags of [
      0,
      CommandFlag.NO_HOLE,
      CommandFlag.FAST_ZERO,
      CommandFlag.FAST_ZERO | CommandFlag.FUA,
    ]) {
      await client.writeAt(0, Buffer.alloc(16_384, 7));
      expect((await client.call(Command.WRITE_ZEROES, 100, 12_001, { flags })).error).toBe(Errno.OK);
      const { data } = await client.readAt(0, 16_384);
      const expected = Buffer.alloc(16_384, 7).fill(0, 100, 12_101);
      expect(data.equals(expected)).toBe(true);
    }
  });

  it('2 TiB are trimmed in requests near 4 GiB in under a second', async () => {
    disk.sizeBytes = 2 ** 41;
    const length = 2 ** 32 - 4096;
    const begin = performance.now();
    for (let offset = 0; offset + length <= disk.sizeBytes; offset += length) {
      expect((await client.call(Command.TRIM, offset, length)).error).toBe(Errno.OK);
    }
    expect(performance.now() - begin).toBeLessThan(1000);
  });
});

describe('durability', () => {
  it('FUA flushes after the write, trim or zero and before the reply; elsewhere it is accepted', async () => {
    expect(await client.writeAt(0, Buffer.alloc(512), CommandFlag.FUA)).toBe(Errno.OK);
    expect((await client.call(Command.TRIM, 0, 4096, { flags: CommandFlag.FUA })).error).toBe(Errno.OK);
    expect((await client.call(Command.WRITE_ZEROES, 0, 512, { flags: CommandFlag.FUA })).error).toBe(
      Errno.OK,
    );
    expect(disk.flushes).toBe(3);
    expect((await client.readAt(0, 512, CommandFlag.FUA)).error).toBe(Errno.OK);
    expect((await client.call(Command.CACHE, 0, 512, { flags: CommandFlag.FUA })).error).toBe(Errno.OK);
    expect(disk.flushes).toBe(3);
  });

  it('a FUA write whose flush fails is answered with the error', async () => {
    disk.fault = (operation) => (operation === 'flush' ? new SealbdError('EIO', 'fsync failed') : undefined);
    expect(await client.writeAt(0, Buffer.alloc(512), CommandFlag.FUA)).toBe(Errno.EIO);
    expect((await client.call(Command.FLUSH, 0, 0)).error).toBe(Errno.EIO);
  });

  it('a FLUSH on one connection starts after writes acknowledged on another', async () => {
    const order: string[] = [];
    disk.delay = (operation) => {
      order.push(operation);
      return undefined;
    };
    const other = await RawClient.serving(test.address, 'disk');
    expect(await other.writeAt(0, Buffer.alloc(512))).toBe(Errno.OK);
    expect((await client.call(Command.FLUSH, 0, 0)).error).toBe(Errno.OK);
    expect(order).toEqual(['write', 'flush']);
    await other.close();
  });
});

describe('a device that completes later', () => {
  it('answers in the order of completion', async () => {
    const release: (() => void)[] = [];
    disk.delay = (operation) =>
      operation === 'read' ? new Promise<void>((resolve) => release.push(resolve)) : undefined;
    const first = client.send(Command.READ, 0, 4096);
    const second = client.send(Command.READ, 4096, 4096);
    const third = client.send(Command.WRITE, 8192, 512, { payload: Buffer.alloc(512) });
    expect((await client.message()).cookie).toBe(third);
    await eventually(() => release.length === 2, 'both reads reached the device');
    release[1]();
    expect((await client.message()).cookie).toBe(second);
    release[0]();
    expect((await client.message()).cookie).toBe(first);
  });

  it('keeps a payload where it is until the device has taken it', async () => {
    let release: () => void = () => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    disk.delay = (operation) => (operation === 'write' ? gate : undefined);
    const payloads = Array.from({ length: 40 }, () => random.bytes(100_000));
    const cookies = payloads.map((payload, i) =>
      client.send(Command.WRITE, i * 100_000, payload.length, { payload }),
    );
    await new Promise((resolve) => setTimeout(resolve, 100));
    release();
    for (const _ of cookies) expect((await client.message()).error).toBe(Errno.OK);
    for (const [i, payload] of payloads.entries()) {
      expect((await client.readAt(i * 100_000, payload.length)).data.equals(payload)).toBe(true);
    }
  });

  it('an error of one piece fails the whole write, after its other pieces', async () => {
    disk.delay = () => Promise.resolve();
    disk.fault = (operation, offset) =>
      operation === 'write' && offset > 0 ? new SealbdError('ENOSPC', 'full') : undefined;
    expect(await client.writeAt(0, Buffer.alloc(8 * MiB, 1))).toBe(Errno.ENOSPC);
    disk.fault = () => undefined;
    await expectInStep();
  });

  it('DISC waits for what is in flight, then closes', async () => {
    let release: () => void = () => undefined;
    disk.delay = () =>
      new Promise<void>((resolve) => {
        release = resolve;
      });
    const cookie = client.send(Command.WRITE, 0, 512, { payload: Buffer.alloc(512, 3) });
    client.send(Command.DISC, 0, 0);
    await eventually(() => test.server.clients()[0]?.inFlight === 1, 'the write is in flight');
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(client.isClosed).toBe(false);
    release();
    expect((await client.answer(cookie)).error).toBe(Errno.OK);
    await client.closed;
  });

  it('a client that leaves while it is sent an early reply is gone, and nothing else', async () => {
    await client.writeAt(0, Buffer.alloc(MiB, 1));
    const leaving = client;
    disk.fault = (operation) => {
      if (operation === 'read') leaving.socket.resetAndDestroy();
      return undefined;
    };
    // Each is sent before the next is looked at.
    for (let i = 0; i < 4; i++) leaving.send(Command.READ, 0, MiB / 2);
    await leaving.closed;
    await eventually(() => test.server.stats().connections === 0, 'the server has noticed');
    expect(test.log.filter(({ level }) => level === 'error')).toEqual([]);
    client = await RawClient.serving(test.address, 'disk');
    await expectInStep();
  });

  it('a client that shuts its sending side still gets its answers', async () => {
    disk.delay = () => new Promise<void>((resolve) => setTimeout(resolve, 50));
    const cookie = client.send(Command.READ, 0, 4096);
    client.socket.end();
    expect((await client.answer(cookie)).error).toBe(Errno.OK);
    await client.closed;
  });
});

describe('resize', () => {
  it('the size is read for every request', async () => {
    disk.sizeBytes = 2 * SIZE;
    expect(await client.writeAt(SIZE, Buffer.alloc(512))).toBe(Errno.OK);
    disk.sizeBytes = SIZE;
    expect(await client.writeAt(SIZE, Buffer.alloc(512))).toBe(Errno.ENOSPC);
  });
});
