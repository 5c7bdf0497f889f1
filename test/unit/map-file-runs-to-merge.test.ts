import { describe, expect, test } from 'vitest';
import { runsToMerge } from '../../src/volume/map-file/runs-to-merge.js';

/** Adds runs of `change` entries to a map of at most `entriesMax`, and counts what is written. */
function simulate(rounds: number, change: number, entriesMax: number) {
  const sizes: number[] = [];
  let written = 0;
  let runsMax = 0;
  for (let i = 0; i < rounds; i++) {
    sizes.push(change);
    const merged = runsToMerge(sizes);
    if (merged === 0) {
      written += change;
    } else {
      const total = sizes.splice(-merged).reduce((sum, size) => sum + size, 0);
      // Changes of blocks that are mapped already replace entries.
      sizes.push(Math.min(total, entriesMax));
      written += Math.min(total, entriesMax);
    }
    runsMax = Math.max(runsMax, sizes.length);
  }
  return { perChange: written / (rounds * change), runsMax };
}

describe('runsToMerge', () => {
  test('merges nothing where there is one run, or none', () => {
    expect(runsToMerge([])).toBe(0);
    expect(runsToMerge([10])).toBe(0);
  });

  test('leaves a run alone that is at most a quarter of the one before', () => {
    expect(runsToMerge([400, 100])).toBe(0);
    expect(runsToMerge([400, 101])).toBe(2);
  });

  test('goes on as long as what is merged is larger than a quarter of the run before', () => {
    expect(runsToMerge([10_000, 1000, 200, 60])).toBe(3);
    expect(runsToMerge([5000, 1000, 200, 60])).toBe(4);
    expect(runsToMerge([5000, 1000, 200, 50])).toBe(0);
  });

  test('writes each change O(log n) times and keeps O(log n) runs', () => {
    for (const rounds of [10, 100, 1000, 10_000, 100_000]) {
      const { perChange, runsMax } = simulate(rounds, 1000, Number.POSITIVE_INFINITY);
      console.log(
        `${rounds} cuts, growing: ${perChange.toFixed(1)} entries written a change, ${runsMax} runs`,
      );
      expect(perChange).toBeLessThan(1 + 2.5 * Math.log2(rounds));
      expect(runsMax).toBeLessThanOrEqual(2 + Math.log(rounds) / Math.log(4));
    }
  });

  test('writes a bounded number of entries a change while a volume of fixed size is overwritten', () => {
    for (const cutsPerVolume of [10, 100, 1000]) {
      const { perChange, runsMax } = simulate(20_000, 1000, 1000 * cutsPerVolume);
      const bytes = (perChange * 8).toFixed(0);
      console.log(
        `overwriting, ${cutsPerVolume} cuts a volume: ${perChange.toFixed(1)} entries (${bytes} bytes) written a change, ${runsMax} runs`,
      );
      expect(perChange).toBeLessThan(6 + 2.5 * Math.log2(cutsPerVolume));
      expect(runsMax).toBeLessThanOrEqual(2 + Math.log(cutsPerVolume) / Math.log(4));
    }
  });
});
