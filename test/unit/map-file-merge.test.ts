import { describe, expect, test } from 'vitest';
import type { SegmentEntry, SegmentRecord } from '../../src/volume/map-file/codec.js';
import { mergeAllSegments, mergeRuns, mergeSegments } from '../../src/volume/map-file/merge.js';
import { RunBatch, type RunSource } from '../../src/volume/map-file/run-batch.js';
import type { SegmentSource } from '../../src/volume/map-file/writer.js';

function record(slots: number): SegmentRecord {
  return {
    kind: 1,
    suite: 2,
    dekId: 1,
    slots,
    segmentId: slots,
    originUuid: new Uint8Array(16),
    salt: new Uint8Array(32),
  };
}

function entries(...pairs: [index: number, slots: number | undefined][]): SegmentEntry[] {
  return pairs.map(([index, slots]) => ({ index, segment: slots === undefined ? undefined : record(slots) }));
}

async function collect(source: SegmentSource): Promise<[number, number | undefined][]> {
  const result: [number, number | undefined][] = [];
  for await (const { index, segment } of source) result.push([index, segment?.slots]);
  return result;
}

describe('merging segment entries', () => {
  const older = entries([1, 10], [2, 20], [5, 50], [9, 90]);
  const newer = entries([0, 1], [2, 21], [5, undefined], [7, undefined], [12, 5]);

  test('takes the newer of two of one index', async () => {
    expect(await collect(mergeSegments(newer, older))).toEqual([
      [0, 1],
      [1, 10],
      [2, 21],
      [5, undefined],
      [7, undefined],
      [9, 90],
      [12, 5],
    ]);
  });

  test('drops tombstones for the first run of a map', async () => {
    const options = { dropTombstones: true };
    const wanted = [
      [0, 1],
      [1, 10],
      [2, 21],
      [9, 90],
      [12, 5],
    ];
    expect(await collect(mergeSegments(newer, older, options))).toEqual(wanted);
    expect(await collect(mergeAllSegments([older, newer, []], options))).toEqual(wanted);
    expect(await collect(mergeAllSegments([newer], options))).toEqual([
      [0, 1],
      [2, 21],
      [12, 5],
    ]);
  });

  test('of many sources lets the last win', async () => {
    const sources = [
      entries([3, 1]),
      entries([3, undefined]),
      entries([3, 3], [4, 1]),
      entries([4, undefined]),
    ];
    expect(await collect(mergeAllSegments(sources))).toEqual([
      [3, 3],
      [4, undefined],
    ]);
    expect(await collect(mergeAllSegments([]))).toEqual([]);
  });
});

test('a merge that is given up, or whose source fails, closes both sources', async () => {
  const closed: string[] = [];
  async function* source(name: string, fails: boolean): AsyncGenerator<RunBatch, void> {
    try {
      for (let i = 0; ; i++) {
        if (fails && i === 3) throw new Error('unreadable');
        const batch = new RunBatch(1000);
        for (let k = 0; k < 1000; k++) batch.push((i * 1000 + k) * 4 + name.length, 1, k);
        yield batch;
      }
    } finally {
      closed.push(name);
    }
  }
  for await (const batch of mergeRuns(source('a', false), source('bb', false))) {
    expect(batch.count).toBeGreaterThan(0);
    break;
  }
  expect(closed).toEqual(['a', 'bb']);
  const drain = async (runs: RunSource): Promise<void> => {
    for await (const batch of runs) expect(batch.count).toBeGreaterThan(0);
  };
  await expect(drain(mergeRuns(source('ccc', false), source('dddd', true)))).rejects.toThrow('unreadable');
  expect(closed.sort()).toEqual(['a', 'bb', 'ccc', 'dddd']);
});
