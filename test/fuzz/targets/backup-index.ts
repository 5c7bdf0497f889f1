/** The index of a backup decodes to nothing or to what encodes to the same bytes again; its bitmaps count right. */
import { decodeIndex, encodeIndex, type IndexEntry } from '../../../src/backup/index-codec.js';
import { SlotSet } from '../../../src/backup/slot-set.js';
import { decoded, requireSame, requireThat } from './oracle.js';

export function fuzz(data: Uint8Array): void {
  const entries = decoded(() => decodeIndex(data, 'index'));
  if (entries === undefined) return;
  requireSame(encodeIndex(entries), data, 'index');
  for (const { slots } of entries) checkSlots(slots);
}

/** Runs, counts and ranks say the same, and a set that is put together anew is the same. */
function checkSlots(slots: IndexEntry['slots']): void {
  const again = new SlotSet();
  let count = 0;
  for (const { position, count: length } of slots.runs()) {
    requireThat(slots.has(position) && slots.has(position + length - 1), 'a run is of the set');
    requireThat(!slots.has(position - 1) && !slots.has(position + length), 'a run ends where it ends');
    requireThat(slots.rank(position) === count, 'a rank is how many are before');
    count += length;
    again.add(position, length);
  }
  requireThat(count === slots.count && again.slots === slots.slots, 'runs are all of the set');
  requireSame(again.bitmap(), slots.bitmap(), 'bitmap');
}
