import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Chunk, ChunkPool } from '../../src/nbd/chunk-pool.js';

const SECRET = 0xa5;

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
