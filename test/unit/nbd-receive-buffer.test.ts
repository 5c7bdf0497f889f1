/** What a connection has received and not parsed, while it moves from chunk to chunk. */
import { randomBytes } from 'node:crypto';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { LARGE_CHUNKS_IDLE_MAX, SMALL_CHUNK_BYTES } from '../../src/base/limits.js';
import { type Chunk, ChunkPool } from '../../src/nbd/chunk-pool.js';
import { ReceiveBuffer } from '../../src/nbd/receive-buffer.js';
import type { Transport } from '../../src/nbd/transport.js';

let pool: ChunkPool;
let input: ReceiveBuffer;

beforeEach(() => {
  pool = new ChunkPool();
  input = new ReceiveBuffer(pool);
});

afterEach(() => {
  input.clear();
  pool.close();
  expect(pool.stats().bytes).toBe(0);
});

/** All that it receives from here on is `bytes`. */
function receive(bytes: Uint8Array): void {
  const transport = {
    receive(chunk: Chunk, offset: number, room: number): number {
      if (room < bytes.length) throw new Error('there is no room for that');
      chunk.arena.bytes.set(bytes, offset);
      return bytes.length;
    },
  };
  expect(input.fill(transport as unknown as Transport, Number.POSITIVE_INFINITY)).toBe(bytes.length);
}

it.each([
  ['is kept for the next who needs it', 0],
  ['goes back to the kernel', LARGE_CHUNKS_IDLE_MAX],
])('what is left over moves to a small chunk whole, also where the large one %s', (_, idle) => {
  // Who receives much gets a large chunk next.
  const first = randomBytes(SMALL_CHUNK_BYTES + 4000);
  receive(first.subarray(0, SMALL_CHUNK_BYTES));
  input.consume(SMALL_CHUNK_BYTES - 1000);
  receive(first.subarray(SMALL_CHUNK_BYTES));
  const left = first.subarray(SMALL_CHUNK_BYTES - 1000);
  expect(input.holdsLarge).toBe(true);
  const others = Array.from({ length: idle }, () => pool.takeLarge()!);
  for (const other of others) other.release();

  input.shrink();
  expect(input.holdsLarge).toBe(false);
  expect(left.equals(input.bytes())).toBe(true);
  const more = randomBytes(3000);
  receive(more);
  expect(Buffer.concat([left, more]).equals(input.bytes())).toBe(true);
});
