/** The memory of the server: what is wiped when, what is given back, and who gets what comes back. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LARGE_CHUNKS_MAX, ONE_CHUNK_SHARE } from '../../src/base/limits.js';
import { type Chunk, ChunkPool } from '../../src/nbd/chunk-pool.js';

const SECRET = 0xa5;
/** For who wants one at a time. */
const ONE_CHUNKS = LARGE_CHUNKS_MAX * ONE_CHUNK_SHARE;

function fill(chunk: Chunk): void {
  chunk.arena.bytes.fill(SECRET, chunk.start, chunk.end);
}

function holds(chunk: Chunk, byte: number): boolean {
  return chunk.arena.bytes.subarray(chunk.start, chunk.end).every((one) => one === byte);
}

describe('wiping a chunk pool', () => {
  let pool: ChunkPool;
  beforeEach(() => {
    pool = new ChunkPool();
  });
  afterEach(() => pool.close());

  it.each(['small', 'large'])('overwrites a %s chunk that nobody uses at once', (size) => {
    const chunk = size === 'small' ? pool.takeSmall(false)! : pool.takeLarge()!;
    fill(chunk);
    chunk.release();
    expect(holds(chunk, SECRET)).toBe(true);
    pool.wipeUsed();
    expect(holds(chunk, 0)).toBe(true);
  });

  it.each(['small', 'large'])(
    'leaves a %s chunk in use alone, and overwrites it when it is given back',
    (size) => {
      const chunk = size === 'small' ? pool.takeSmall(false)! : pool.takeLarge()!;
      fill(chunk);
      pool.wipeUsed();
      expect(holds(chunk, SECRET)).toBe(true);
      chunk.release();
      expect(holds(chunk, 0)).toBe(true);
    },
  );

  it('finds what is used after an earlier wipe', () => {
    pool.wipeUsed();
    const chunk = pool.takeSmall(false)!;
    fill(chunk);
    chunk.release();
    expect(holds(chunk, SECRET)).toBe(true);
    pool.wipeUsed();
    expect(holds(chunk, 0)).toBe(true);
  });
});

describe('trimming a chunk pool', () => {
  const CHUNK_BYTES = 2 << 20;

  it('gives back what was not in use at any time since the last call, and all of it in the end', () => {
    const pool = new ChunkPool();
    const chunks = Array.from({ length: 6 }, () => pool.takeLarge()!);
    for (const chunk of chunks.splice(2)) chunk.release();
    pool.trim();
    expect(pool.stats().bytes).toBe(6 * CHUNK_BYTES);
    pool.trim();
    expect(pool.stats().bytes).toBe(2 * CHUNK_BYTES);
    const third = pool.takeLarge()!;
    third.release();
    pool.trim();
    expect(pool.stats().bytes).toBe(3 * CHUNK_BYTES);
    for (const chunk of chunks) chunk.release();
    pool.trim();
    pool.trim();
    expect(pool.stats()).toMatchObject({ bytes: 0, largeUsed: 0 });
    pool.close();
  });

  it('keeps small chunks while one of them is in use', () => {
    const pool = new ChunkPool();
    const chunk = pool.takeSmall(false)!;
    pool.trim();
    expect(pool.stats().bytes).toBe(CHUNK_BYTES);
    chunk.arena.bytes.fill(1, chunk.start, chunk.end);
    chunk.release();
    pool.trim();
    expect(pool.stats().bytes).toBe(0);
    expect(pool.takeSmall(false)).toBeDefined();
    pool.close();
  });
});

describe('waiting for chunks', () => {
  /** Takes `wanted` chunks, one after the other, as a client does with that many requests. */
  function client(pool: ChunkPool, wanted: number, atOnce = 1): { held: Chunk[] } {
    const held: Chunk[] = [];
    const ask = () => {
      while (held.length < wanted) {
        const chunks = pool.takeMany(atOnce);
        if (chunks === undefined) return atOnce;
        held.push(...chunks);
      }
      return 0;
    };
    if (ask() > 0) pool.wait({ retry: ask }, atOnce);
    return { held };
  }

  async function giveBack(chunks: Chunk[], count: number): Promise<void> {
    for (const chunk of chunks.splice(0, count)) chunk.release();
    await new Promise((resolve) => setImmediate(resolve));
  }

  it('who wants many has no more of what comes back than who wants few', async () => {
    const pool = new ChunkPool();
    const all: Chunk[] = [];
    for (let chunk = pool.takeLarge(); chunk !== undefined; chunk = pool.takeLarge()) all.push(chunk);
    const greedy = client(pool, 20);
    const polite = [client(pool, 2), client(pool, 1)];
    await giveBack(all, 6);
    expect(polite.map(({ held }) => held.length)).toEqual([2, 1]);
    expect(greedy.held.length).toBe(3);
    for (const { held } of polite) await giveBack(held, held.length);
    expect(greedy.held.length).toBe(6);
    await giveBack(all, all.length);
    await giveBack(greedy.held, 6);
    expect(pool.stats()).toMatchObject({ largeUsed: greedy.held.length, waiting: 0 });
    await giveBack(greedy.held, greedy.held.length);
    pool.close();
  });

  it('who wants many at once has its turn when there are as many, and who wants one does not wait for that', async () => {
    const pool = new ChunkPool();
    const all: Chunk[] = [];
    for (let chunk = pool.takeLarge(); chunk !== undefined; chunk = pool.takeLarge()) all.push(chunk);
    const large = client(pool, 16, 16);
    const later = client(pool, 1);
    await giveBack(all, 15);
    expect([large.held.length, later.held.length]).toEqual([0, 0]);
    await giveBack(all, all.length - ONE_CHUNKS + 1);
    expect([large.held.length, later.held.length]).toEqual([16, 1]);
    for (const held of [all, large.held, later.held]) await giveBack(held, held.length);
    expect(pool.stats()).toMatchObject({ largeUsed: 0, waiting: 0 });
    pool.close();
  });

  it('who wants one finds a chunk while those who want many hold and want the rest', async () => {
    const pool = new ChunkPool();
    const many = Array.from({ length: 12 }, () => client(pool, 17, 17));
    const served = many.filter(({ held }) => held.length > 0).length;
    expect(served).toBe(Math.floor((LARGE_CHUNKS_MAX - ONE_CHUNKS) / 17));
    const one = Array.from({ length: ONE_CHUNKS + 1 }, () => client(pool, 1));
    expect(one.map(({ held }) => held.length)).toEqual([...new Array(ONE_CHUNKS).fill(1), 0]);
    // They go round among themselves, and who wants many has its turn however long they do.
    await giveBack(one[0].held, 1);
    expect(one[ONE_CHUNKS].held.length).toBe(1);
    for (const { held } of many.slice(0, served)) await giveBack(held, 17);
    expect(many.slice(served, 2 * served).every(({ held }) => held.length === 17)).toBe(true);
    for (const { held } of many) await giveBack(held, 17);
    for (const { held } of [...many, ...one]) await giveBack(held, held.length);
    expect(pool.stats()).toMatchObject({ largeUsed: 0, waiting: 0 });
    pool.close();
  });

  it('who left waits no more, and holds up nobody', async () => {
    const pool = new ChunkPool();
    const all: Chunk[] = [];
    for (let chunk = pool.takeLarge(); chunk !== undefined; chunk = pool.takeLarge()) all.push(chunk);
    const gone = { retry: () => 17 };
    pool.wait(gone, 17);
    await giveBack(all, 4);
    const one = client(pool, 1);
    expect(one.held.length).toBe(0);
    pool.forget(gone);
    await giveBack([], 0);
    expect([one.held.length, pool.stats().waiting]).toEqual([1, 0]);
    for (const held of [all, one.held]) await giveBack(held, held.length);
    pool.close();
  });

  it('what is lent to others comes out of the same memory, and brings who waits its turn when it comes back', async () => {
    const CHUNK_BYTES = 2 << 20;
    const pool = new ChunkPool();
    expect(pool.mayLend).toBe(true);
    pool.lend(1);
    const all: Chunk[] = [];
    for (let chunk = pool.takeLarge(); chunk !== undefined; chunk = pool.takeLarge()) all.push(chunk);
    expect(all.length).toBe(LARGE_CHUNKS_MAX - 1);
    const late = client(pool, 1);
    expect([late.held.length, pool.mayLend]).toEqual([0, false]);
    pool.lend(-1);
    await giveBack([], 0);
    expect(late.held.length).toBe(1);
    await giveBack(late.held, 1);
    await giveBack(all, all.length);
    // A part of it at most, so that requests find room, whatever is lent.
    pool.lend((LARGE_CHUNKS_MAX / 4) * CHUNK_BYTES);
    expect(pool.mayLend).toBe(false);
    expect(client(pool, (LARGE_CHUNKS_MAX * 3) / 4).held.length).toBe((LARGE_CHUNKS_MAX * 3) / 4);
    pool.close();
  });
});
