/** A run is merged with the one before it once it is larger than one part in this many of that. */
const RATIO = 4;

/**
 * How many of the newest runs to merge into one: 0, or at least 2. `sizes` has all runs, oldest first, in any unit;
 * the last may be one that is not written yet, so that it is written once, merged. Afterwards each run is at least
 * RATIO times the one after it, so n changes are in about log4(n) runs, and a change is written again only when
 * the run it is in grows by a quarter.
 */
export function runsToMerge(sizes: readonly number[]): number {
  let merged = 1;
  let total = sizes[sizes.length - 1] ?? 0;
  for (let i = sizes.length - 2; i >= 0; i--) {
    const size = sizes[i] as number;
    if (total * RATIO <= size) break;
    total += size;
    merged += 1;
  }
  return merged >= 2 ? merged : 0;
}
