/** Windows of slots of one file: from a segment file, where they have their places, or from a data file, where they are packed. */
import { SEGMENT_HEADER_BYTES, SLOT_BYTES } from '../base/limits.js';
import { slotOffset } from '../segment/format.js';
import type { StoreFile } from '../store/store.js';
import { WINDOW_SLOTS } from './slot-scan.js';
import type { PositionRun, SlotSet } from './slot-set.js';

/** Some slots of a set, in order: those of `runs`, the first of which is the `first`th of the set. */
export interface Window {
  readonly first: number;
  readonly count: number;
  readonly runs: readonly PositionRun[];
}

/** At most WINDOW_SLOTS at a time; with `spanMax`, no wider than so many positions. */
export function* windows(set: SlotSet, spanMax = Number.POSITIVE_INFINITY): Generator<Window> {
  let [first, count, runs] = [0, 0, [] as PositionRun[]];
  for (const run of set.runs()) {
    let { position, count: left } = run;
    while (left > 0) {
      const room = WINDOW_SLOTS - count;
      const span = runs.length === 0 ? spanMax : spanMax - (position - runs[0].position);
      const take = Math.min(left, room, span);
      if (take <= 0) {
        yield { first, count, runs };
        [first, count, runs] = [first + count, 0, []];
        continue;
      }
      runs.push({ position, count: take });
      count += take;
      position += take;
      left -= take;
    }
  }
  if (count > 0) yield { first, count, runs };
}

/** Reads slots of a segment file and packs them. False where the file ends before the last. */
export async function readFromSegment(
  file: StoreFile,
  { runs, count }: Window,
  into: Uint8Array,
): Promise<boolean> {
  const from = runs[0].position;
  const { position, count: last } = runs[runs.length - 1];
  const span = (position + last - from) * SLOT_BYTES;
  const read = await file.read(into.subarray(0, span), slotOffset(from));
  let at = 0;
  for (const run of runs) {
    const start = (run.position - from) * SLOT_BYTES;
    if (start !== at) into.copyWithin(at, start, start + run.count * SLOT_BYTES);
    at += run.count * SLOT_BYTES;
  }
  if (at !== count * SLOT_BYTES) throw new RangeError('a window of another count');
  return read === span;
}

/** Reads packed slots of a data file. False where the file ends before the last. */
export async function readFromData(
  file: StoreFile,
  { first, count }: Pick<Window, 'first' | 'count'>,
  into: Uint8Array,
): Promise<boolean> {
  const bytes = into.subarray(0, count * SLOT_BYTES);
  return (await file.read(bytes, packedOffset(first))) === bytes.length;
}

export function packedOffset(ordinal: number): number {
  return SEGMENT_HEADER_BYTES + ordinal * SLOT_BYTES;
}
