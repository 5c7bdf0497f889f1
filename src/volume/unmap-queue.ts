import { UNMAP_ENTRIES_MAX, type UnmapEntry } from '../segment/format.js';

/**
 * Trims and zeroes that are acknowledged but not yet in the log. They commute with writes elsewhere, so they wait and
 * share a slot; a write that overlaps one of them must not enter the log before it.
 */
export class UnmapQueue {
  #entries: UnmapEntry[] = [];

  get length(): number {
    return this.#entries.length;
  }

  get full(): boolean {
    return this.#entries.length >= UNMAP_ENTRIES_MAX;
  }

  push(entry: UnmapEntry): void {
    this.#entries.push(entry);
  }

  overlaps(lba: number, blocks: number): boolean {
    for (const entry of this.#entries) {
      if (entry.lba < lba + blocks && lba < entry.lba + entry.blocks) return true;
    }
    return false;
  }

  /** Removes and returns the oldest entries, as many as fit in one slot. */
  takeSlotful(): UnmapEntry[] {
    const taken = this.#entries.slice(0, UNMAP_ENTRIES_MAX);
    this.#entries = this.#entries.slice(UNMAP_ENTRIES_MAX);
    return taken;
  }
}
