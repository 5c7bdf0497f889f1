/** BLOCK_STATUS of a map in many pieces costs much and is answered with little: it has a bound in each turn of the event loop. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { BLOCK_BYTES, EXTENT_STEPS_PER_TURN_MAX } from '../../src/base/limits.js';
import type { Extent, StepBudget } from '../../src/device/block-device.js';
import { Command, CommandFlag, Errno } from '../../src/nbd/wire/constants.js';
import { BlockMap } from '../../src/volume/block-map.js';
import { ReadPath, type ReadPathOptions } from '../../src/volume/read-path.js';
import { MemoryDevice } from '../support/memory-device.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { startTestServer, type TestServer } from '../support/nbd-test-server.js';

const BLOCKS = 65_536;
const SIZE = BLOCKS * BLOCK_BYTES;

/** Each block is in a place of its own: what was written from the end to the beginning. */
function scattered(): ReadPath {
  const map = new BlockMap();
  for (let lba = 0; lba < BLOCKS; lba++) map.setRun(lba, 1, 2 * (BLOCKS - lba), () => undefined);
  // Nothing is read.
  return new ReadPath({ map } as ReadPathOptions);
}

/** Counts what is taken, in all and in one turn of the event loop. */
class Scattered extends MemoryDevice {
  readonly #map = scattered();
  inTurn = 0;
  mostInTurn = 0;
  looked = 0;

  override extents(offset: number, length: number, extentsMax: number, steps?: StepBudget): Extent[] {
    const budget = steps ?? { left: Number.POSITIVE_INFINITY };
    const found = this.#map.extents(offset, length, extentsMax, budget);
    const blocks = found.reduce((sum, extent) => sum + extent.length, 0) / BLOCK_BYTES;
    this.looked += blocks;
    if (this.inTurn === 0) setImmediate(() => (this.inTurn = 0));
    this.inTurn += blocks;
    this.mostInTurn = Math.max(this.mostInTurn, this.inTurn);
    return found;
  }
}

let disk: Scattered;
let test: TestServer;
const clients: RawClient[] = [];

beforeEach(async () => {
  disk = new Scattered({ name: 'disk', sizeBytes: SIZE });
  test = await startTestServer([disk]);
});

afterEach(async () => {
  await Promise.all(clients.splice(0).map((client) => client.close()));
  await test.stop();
});

async function serving(): Promise<RawClient> {
  const client = await RawClient.serving(test.address, 'disk', { meta: true });
  clients.push(client);
  return client;
}

it('a walk ends where its steps do, after one extent at least, and long runs count for more', () => {
  const reads = scattered();
  const steps = { left: 100 };
  expect(reads.extents(0, SIZE, 1, steps)).toEqual([{ length: 100 * BLOCK_BYTES, hole: false }]);
  expect(steps.left).toBe(0);
  expect(reads.extents(0, SIZE, 1, steps)).toEqual([{ length: BLOCK_BYTES, hole: false }]);
  const far = { left: 1000 };
  expect(reads.extents(2 * SIZE, SIZE, 1, far)).toEqual([{ length: SIZE, hole: true }]);
  expect(far.left).toBeLessThan(0);
});

it('clients that send many have so many steps together in a turn, and their turns one after the other', async () => {
  const both = [await serving(), await serving()];
  const each = 20;
  const flags = CommandFlag.REQ_ONE;
  for (const client of both)
    for (let i = 0; i < each; i++) client.send(Command.BLOCK_STATUS, 0, SIZE, { flags });
  const answered = [0, 0];
  let between = 0;
  await Promise.all(
    both.map(async (client, which) => {
      for (let i = 0; i < each; i++) {
        const { error, extents } = await client.message();
        expect([error, extents.length]).toEqual([Errno.OK, 1]);
        answered[which] += 1;
        between = Math.max(between, Math.abs(answered[0] - answered[1]));
      }
    }),
  );
  expect(disk.mostInTurn).toBeLessThanOrEqual(2 * EXTENT_STEPS_PER_TURN_MAX);
  expect(between).toBeLessThan(each / 2);
});

it('a long read looks at each part of the map about once', async () => {
  const client = await serving();
  const length = 32 << 20;
  expect((await client.readAt(0, length)).error).toBe(Errno.OK);
  expect(disk.looked * BLOCK_BYTES).toBeLessThanOrEqual(2 * length);
});
