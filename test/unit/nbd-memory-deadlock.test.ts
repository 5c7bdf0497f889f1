/** Clients that each wait for memory, and hold some with what they have sent behind the request that waits. */
import { afterEach, expect, it } from 'vitest';
import { LARGE_CHUNKS_MAX, REQUEST_BYTES_MAX } from '../../src/base/limits.js';
import type { ChunkPoolStats } from '../../src/nbd/chunk-pool.js';
import { Command } from '../../src/nbd/wire/constants.js';
import { MemoryDevice } from '../support/memory-device.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { eventually, startTestServer, type TestServer } from '../support/nbd-test-server.js';

const KiB = 1024;
const MiB = 1024 * KiB;
/** The smallest that a configuration may have. */
const TOTAL_BYTES = 208 * MiB;
const WRITE_BYTES = 256 * KiB;
/** More than a small chunk has, and not enough behind it for a piece: so it waits in a large chunk. */
const BEGUN_BYTES = 80 * KiB;

let test: TestServer;
const clients: RawClient[] = [];

afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()));
  await test.stop();
});

const held = ({ largeUsed, smallUsed }: ChunkPoolStats): number => largeUsed + smallUsed;

function begin(client: RawClient): void {
  const payload = Buffer.alloc(BEGUN_BYTES);
  client.send(Command.WRITE, 0, WRITE_BYTES, { payload, length: WRITE_BYTES });
}

it('long READs are served, though every client has a WRITE begun behind its own', async () => {
  const disk = new MemoryDevice({ name: 'disk', sizeBytes: 64 * MiB });
  test = await startTestServer([disk], { limits: { bytesInFlightTotal: TOTAL_BYTES } });
  for (let i = 0; i < LARGE_CHUNKS_MAX; i++)
    clients.push(await RawClient.serving(test.address, 'disk', { structured: false }));
  for (const client of clients) begin(client);
  await eventually(() => held(test.server.pool.stats()) === clients.length, 'all hold a chunk');
  const read: Promise<unknown>[] = [];
  for (const [i, client] of clients.entries()) {
    client.write(Buffer.alloc(WRITE_BYTES - BEGUN_BYTES));
    client.send(Command.READ, 0, i === 0 ? REQUEST_BYTES_MAX : 4 * MiB);
    begin(client);
    read.push(client.message().then(() => client.message()));
  }
  await Promise.all(read);
  expect(test.server.stats().requests.read).toBe(clients.length);
});

it('READs of one chunk are served beside long ones, though a WRITE is begun behind each', async () => {
  const disk = new MemoryDevice({ name: 'disk', sizeBytes: 64 * MiB });
  test = await startTestServer([disk], { limits: { bytesInFlightTotal: TOTAL_BYTES } });
  const connect = () => RawClient.serving(test.address, 'disk', { structured: false });
  const short = await Promise.all(Array.from({ length: 8 }, connect));
  const long = await Promise.all(Array.from({ length: 8 }, connect));
  clients.push(...short, ...long);
  for (const client of short) begin(client);
  await eventually(() => held(test.server.pool.stats()) >= short.length, 'the WRITEs are begun');
  let over = false;
  let served = 0;
  const readers = long.map(async (client) => {
    for (let i = 0; i < 3; i++) client.send(Command.READ, 0, REQUEST_BYTES_MAX);
    while (!over) {
      await client.message();
      served += 1;
      client.send(Command.READ, 0, REQUEST_BYTES_MAX);
    }
  });
  await eventually(() => served >= long.length, 'long READs are served all the time');
  const answers = short.map(async (client) => {
    client.write(Buffer.alloc(WRITE_BYTES - BEGUN_BYTES));
    client.send(Command.READ, 0, MiB);
    begin(client);
    await client.message();
    await client.message();
  });
  await Promise.all(answers);
  over = true;
  await Promise.all(readers);
});
