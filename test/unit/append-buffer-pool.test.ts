import { describe, expect, it } from 'vitest';
import { type AppendBuffer, AppendBufferPool } from '../../src/segment/append-buffer.js';
import { ManualClock } from '../support/manual-clock.js';

const TRIM_MS = 2000;

/** Freed memory is no longer there to be looked at. */
const freed = ({ arena }: AppendBuffer): boolean => arena.bytes.length === 0;

function taken(pool: AppendBufferPool, count: number): AppendBuffer[] {
  return Array.from({ length: count }, () => {
    const buffer = pool.take();
    if (buffer === undefined) throw new Error('the pool has no buffer');
    return buffer;
  });
}

describe('a pool of append buffers', () => {
  it('gives back the memory of those that were not needed between two looks, and no other', () => {
    const clock = new ManualClock();
    const pool = new AppendBufferPool(4, clock);
    const buffers = taken(pool, 4);
    for (const buffer of buffers.slice(1)) pool.release(buffer);
    clock.advance(TRIM_MS);
    expect(buffers.map(freed)).toEqual([false, false, false, false]);
    // Two at once are needed from here on.
    pool.release(taken(pool, 1)[0]);
    clock.advance(TRIM_MS);
    expect(buffers.filter(freed)).toHaveLength(2);
    expect(freed(buffers[0])).toBe(false);
    clock.advance(TRIM_MS);
    expect(buffers.map(freed)).toEqual([false, true, true, true]);
    pool.release(buffers[0]);
    clock.advance(2 * TRIM_MS);
    expect(buffers.map(freed)).toEqual([true, true, true, true]);
  });

  it('makes as many again afterwards, and lets go of all of them when it ends', () => {
    const clock = new ManualClock();
    const pool = new AppendBufferPool(2, clock);
    for (const buffer of taken(pool, 2)) pool.release(buffer);
    clock.advance(2 * TRIM_MS);
    const buffers = taken(pool, 2);
    expect(pool.take()).toBeUndefined();
    expect(buffers.map(freed)).toEqual([false, false]);
    for (const buffer of buffers) pool.release(buffer);
    pool.freeIdle();
    expect(buffers.map(freed)).toEqual([true, true]);
    clock.advance(TRIM_MS);
  });
});
