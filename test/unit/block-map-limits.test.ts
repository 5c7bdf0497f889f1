import { describe, expect, test } from 'vitest';
import { isSealbdError } from '../../src/base/errors.js';
import { BLOCKS_MAX, SLOT_ADDRESS_END } from '../../src/base/limits.js';
import { BlockMap, UNMAPPED } from '../../src/volume/block-map.js';

const MIB = 2 ** 20;

function ignore(): void {}

function snapshot(map: BlockMap): string {
  const runs: number[] = [];
  map.forEachRun((lba, blocks, slot) => runs.push(lba, blocks, slot));
  return runs.join(',');
}

/** Maps scattered blocks until the map refuses; returns the first block that it refused. */
function fill(map: BlockMap): number {
  for (let i = 0; ; i++) {
    try {
      map.setRun(i * 7, 1, i * 3, ignore);
    } catch (error) {
      if (!isSealbdError(error, 'ENOMEM')) throw error;
      return i * 7;
    }
  }
}

describe('the memory limit of a block map', () => {
  test('is an ENOMEM that leaves the map as it was', () => {
    const map = new BlockMap(2 * MIB);
    const refused = fill(map);
    expect(map.memoryBytes).toBeLessThanOrEqual(2 * MIB);
    expect(map.mappedBlocks).toBeGreaterThan(150_000);
    const before = snapshot(map);
    const replaced: number[] = [];
    const onReplaced = (slot: number, blocks: number): number => replaced.push(slot, blocks);
    expect(() => map.setRun(refused - 70, 100_000, 5, onReplaced)).toThrow('limit');
    expect(replaced).toEqual([]);
    expect(snapshot(map)).toBe(before);
    expect(map.mappedBlocks).toBe(refused / 7);
  });

  test('lets unmaps and moves through, and writes again once there is room', () => {
    const map = new BlockMap(2 * MIB);
    const refused = fill(map);
    expect(map.move(0, 0, 2 ** 35)).toBe(true);
    map.unmapRun(0, refused / 2, ignore);
    map.setRun(3, 1, 9, ignore);
    expect(map.get(3)).toBe(9);
  });

  test('ends unmaps that only split runs, an eighth later', () => {
    const map = new BlockMap(2 * MIB);
    map.setRun(0, 2 ** 26, 0, ignore);
    let lba = 0;
    expect(() => {
      for (; lba < 2 ** 26; lba += 2) map.unmapRun(lba, 1, ignore);
    }).toThrow('limit');
    expect(map.memoryBytes).toBeGreaterThan(1.75 * MIB);
    expect(map.memoryBytes).toBeLessThanOrEqual(2.25 * MIB);
    expect(map.mappedBlocks).toBe(2 ** 26 - lba / 2);
  });

  test('holds for loading', () => {
    const loader = new BlockMap(MIB).loader();
    expect(() => {
      for (let i = 0; i < 10_000_000; i++) loader.add(i * 5, 1, i);
    }).toThrow('limit');
  });
});

describe('a block map', () => {
  test('holds 64 TiB in one run in little memory, and finds its pieces', () => {
    const map = new BlockMap();
    map.setRun(0, BLOCKS_MAX, 5, ignore);
    expect(map.mappedBlocks).toBe(BLOCKS_MAX);
    expect(map.memoryBytes).toBeLessThan(96 * MIB);
    expect(map.get(BLOCKS_MAX - 1)).toBe(BLOCKS_MAX + 4);
    const out = { slot: 0, blocks: 0 };
    map.runAt(2 ** 33, 2 ** 20, out);
    expect(out).toEqual({ slot: 2 ** 33 + 5, blocks: 2 ** 20 });
    const replaced: number[] = [];
    map.unmapRun(1, BLOCKS_MAX - 2, (slot, blocks) => replaced.push(slot, blocks));
    expect(replaced).toEqual([6, BLOCKS_MAX - 2]);
    map.runAt(1, BLOCKS_MAX, out);
    expect(out).toEqual({ slot: UNMAPPED, blocks: BLOCKS_MAX - 2 });
  });

  test('refuses blocks and slots out of range', () => {
    const map = new BlockMap();
    expect(() => map.setRun(BLOCKS_MAX - 1, 2, 0, ignore)).toThrow(RangeError);
    expect(() => map.setRun(-1, 1, 0, ignore)).toThrow(RangeError);
    expect(() => map.setRun(0, 0, 0, ignore)).toThrow(RangeError);
    expect(() => map.setRun(0, 2, SLOT_ADDRESS_END - 1, ignore)).toThrow(RangeError);
    expect(() => map.unmapRun(BLOCKS_MAX, 1, ignore)).toThrow(RangeError);
    expect(() => map.move(0, 0, -1)).toThrow(RangeError);
    map.setRun(BLOCKS_MAX - 1, 1, SLOT_ADDRESS_END - 1, ignore);
    expect(map.get(BLOCKS_MAX - 1)).toBe(SLOT_ADDRESS_END - 1);
  });

  test('does not move what is not where it was', () => {
    const map = new BlockMap();
    expect(map.move(4, UNMAPPED, 1)).toBe(false);
    map.setRun(4, 1, 10, ignore);
    expect(map.move(4, 11, 12)).toBe(false);
    expect(map.move(4, 10, 12)).toBe(true);
    expect(map.get(4)).toBe(12);
    expect(map.mappedBlocks).toBe(1);
  });

  test('joins what it reports over leaves, and the runs that it shows', () => {
    const map = new BlockMap();
    map.setRun(4000, 10_000, 500, ignore);
    const replaced: number[] = [];
    map.setRun(0, 20_000, 2 ** 37, (slot, blocks) => replaced.push(slot, blocks));
    expect(replaced).toEqual([500, 10_000]);
    expect(snapshot(map)).toBe(`0,20000,${2 ** 37}`);
  });

  test('takes no more changes after a report that threw or changed the map', () => {
    const map = new BlockMap();
    map.setRun(0, 1, 0, ignore);
    expect(() => map.setRun(0, 1, 1, () => map.unmapRun(0, 1, ignore))).toThrow('being changed');
    expect(() => map.setRun(8, 1, 1, ignore)).toThrow('being changed');
  });

  test('is loaded only while empty, and with runs in order', () => {
    const map = new BlockMap();
    const loader = map.loader();
    loader.add(5, 2, 1);
    expect(() => loader.add(6, 1, 1)).toThrow(RangeError);
    expect(() => map.setRun(0, 1, 1, ignore)).toThrow('being changed');
    loader.add(9000, 5, 1);
    loader.finish();
    expect(() => loader.add(10_000, 1, 1)).toThrow(RangeError);
    expect(() => map.loader()).toThrow('empty');
    expect(snapshot(map)).toBe('5,2,1,9000,5,1');
  });

  test('gives its memory back', () => {
    const map = new BlockMap();
    for (let i = 0; i < 1_000_000; i++) map.setRun((i * 7919) % 2 ** 24, 1, i * 2, ignore);
    expect(map.memoryBytes).toBeGreaterThan(4 * MIB);
    map.unmapRun(0, BLOCKS_MAX, ignore);
    expect(map.mappedBlocks).toBe(0);
    expect(map.memoryBytes).toBeLessThan(MIB);
  });
});
