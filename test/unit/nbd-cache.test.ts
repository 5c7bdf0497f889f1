/** CACHE reads within the memory of all clients, as READ does. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { SealbdError } from '../../src/base/errors.js';
import {
  ARENA_CHUNK_BYTES,
  CACHE_BYTES_MAX,
  SMALL_CHUNK_BYTES,
  SMALL_CHUNKS_MAX,
} from '../../src/base/limits.js';
import { Command, Errno } from '../../src/nbd/wire/constants.js';
import { MemoryDevice } from '../support/memory-device.js';
import { eventually, startTestServer, type TestServer } from '../support/nbd-test-server.js';
import { PipelinedClient } from '../support/pipelined-client.js';

const MiB = 2 ** 20;
const CHUNKS = 5;
const REQUESTS = 20;

let disk: MemoryDevice;
let test: TestServer;
const clients: PipelinedClient[] = [];

beforeEach(async () => {
  disk = new MemoryDevice({ name: 'disk', sizeBytes: 64 * MiB });
  const bytesInFlightTotal = SMALL_CHUNKS_MAX * SMALL_CHUNK_BYTES + CHUNKS * ARENA_CHUNK_BYTES;
  test = await startTestServer([disk], { limits: { bytesInFlightTotal } });
});

afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()));
  await test.stop();
});

async function connect(): Promise<PipelinedClient> {
  const client = await PipelinedClient.connect(test.address, 'disk');
  clients.push(client);
  return client;
}

it('many CACHE requests take no more memory than there is, wait for it, and are answered', async () => {
  const held: (() => void)[] = [];
  let holding = true;
  let reads = 0;
  disk.delay = () => {
    reads += 1;
    return holding ? new Promise((resolve) => held.push(resolve)) : undefined;
  };
  const several = [await connect(), await connect(), await connect()];
  const asked = several.flatMap((client) =>
    Array.from({ length: REQUESTS }, (_, i) => client.call(Command.CACHE, i * MiB, 2 * MiB)),
  );
  await eventually(() => test.server.pool.stats().waiting === several.length, 'all of them wait');
  expect(test.server.pool.stats().largeUsed).toBe(CHUNKS);
  expect(held.length).toBe(CHUNKS);
  holding = false;
  for (const release of held) release();
  for (const { error } of await Promise.all(asked)) expect(error).toBe(Errno.OK);
  expect(reads).toBeGreaterThanOrEqual(asked.length);
  await eventually(() => test.server.pool.stats().largeUsed === 0, 'the memory is back');
});

it('reads the blocks of the range once, to its last byte or the most that a CACHE reads, and reports what it meets', async () => {
  const client = await connect();
  const read: [offset: number, length: number][] = [];
  const bad = 20 * MiB;
  disk.fault = (operation, offset, length) => {
    if (operation === 'read') read.push([offset, length]);
    return offset <= bad && bad < offset + length ? new SealbdError('EIO', 'bad block') : undefined;
  };
  const covered = (start: number) => {
    let at = start;
    for (const [offset, length] of read.splice(0)) {
      expect(offset).toBe(at);
      at += length;
    }
    return at;
  };
  const cache = async (offset: number, length: number) =>
    (await client.call(Command.CACHE, offset, length)).error;
  expect(await cache(700, 5 * MiB)).toBe(Errno.OK);
  expect(covered(0)).toBe(5 * MiB + 4096);
  expect(await cache(4096, 100)).toBe(Errno.OK);
  expect(covered(4096)).toBe(8192);
  expect(await cache(8000, 30_000)).toBe(Errno.OK);
  expect(covered(4096)).toBe(40_960);
  expect(await cache(64 * MiB - 10, 10)).toBe(Errno.OK);
  expect(covered(64 * MiB - 4096)).toBe(64 * MiB);
  expect(await cache(bad + MiB, 40 * MiB)).toBe(Errno.OK);
  expect(covered(bad + MiB)).toBe(bad + MiB + CACHE_BYTES_MAX);
  expect(await cache(bad - 5 * MiB, 10 * MiB)).toBe(Errno.EIO);
});
