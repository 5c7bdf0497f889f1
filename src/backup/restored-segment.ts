/** Puts the slots of one segment of a chain back to their positions in a segment file. */
import { SLOT_BYTES } from '../base/limits.js';
import type { KeyHandle } from '../native/addon.js';
import {
  encodeIndex,
  readSlotLba,
  SLOT_KIND_DATA,
  SLOT_KIND_EXTENTS,
  segmentFileName,
  slotOffset,
} from '../segment/format.js';
import { metadataMac } from '../segment/segment-mac.js';
import type { Store, StoreFile } from '../store/store.js';
import type { ChainSegment } from './chain-map.js';
import { type DataVisitor, readData } from './data-reader.js';
import { damaged } from './names.js';
import type { Window } from './packed-slots.js';
import { freshHeader } from './segment-header.js';
import type { SlotWindow } from './slot-scan.js';
import { SlotSet } from './slot-set.js';
import type { SyncQueue } from './sync-queue.js';

export interface PlaceOptions {
  readonly store: Store;
  readonly keys: ReadonlyMap<number, KeyHandle>;
  readonly buffer: SlotWindow;
  readonly syncs: SyncQueue;
  /** Goes on where slots are lost: they read as EIO afterwards. */
  readonly salvage: boolean;
  readonly signal: AbortSignal;
}

/** Makes the file, which is durable when the queue of syncs has ended, and returns the live positions that are lost. INTEGRITY where any is, but with `salvage`. */
export async function placeSegment(
  segment: ChainSegment,
  live: SlotSet,
  options: PlaceOptions,
): Promise<SlotSet> {
  const file = await options.store.create(segmentFileName(segment.id), 0);
  const placing = new Placing(segment, live, file, options);
  try {
    await placing.run();
  } catch (error) {
    await file.close();
    throw error;
  }
  await options.syncs.add(file);
  return placing.lost();
}

const NOWHERE = -1;

class Placing implements DataVisitor {
  readonly #segment: ChainSegment;
  readonly #live: SlotSet;
  readonly #file: StoreFile;
  readonly #options: PlaceOptions;
  /** The block of each position that was placed. */
  readonly #lbas: Float64Array;
  #hasHeader = false;

  constructor(segment: ChainSegment, live: SlotSet, file: StoreFile, options: PlaceOptions) {
    this.#segment = segment;
    this.#live = live;
    this.#file = file;
    this.#options = options;
    this.#lbas = new Float64Array(live.slots).fill(NOWHERE);
  }

  async run(): Promise<void> {
    const { keys, buffer, signal, salvage } = this.#options;
    for (const { backup, entry } of this.#segment.parts) {
      const problem = await readData({ backup, entry, buffer, keys, signal }, this);
      if (problem !== undefined && !salvage) throw damaged(backup.path, problem);
    }
    if (!this.#hasHeader) await this.#file.write(freshHeader(this.#segment, keys), 0);
    if (this.lost().count === 0) await this.#writeIndex();
    else await this.#file.truncate(slotOffset(this.#live.slots));
  }

  async header(bytes: Uint8Array | undefined): Promise<void> {
    if (bytes === undefined || this.#hasHeader) return;
    await this.#file.write(bytes, 0);
    this.#hasHeader = true;
  }

  async window({ runs }: Window, { bytes, valid }: SlotWindow): Promise<void> {
    let at = 0;
    for (const { position, count } of runs) {
      for (let from = 0; from < count; ) {
        const wanted = (i: number): boolean => valid[at + i] === 1 && this.#live.has(position + i);
        let to = from + 1;
        const place = wanted(from);
        while (to < count && wanted(to) === place) to++;
        if (place)
          await this.#place(
            position + from,
            bytes.subarray((at + from) * SLOT_BYTES, (at + to) * SLOT_BYTES),
          );
        from = to;
      }
      at += count;
    }
  }

  async #place(position: number, slots: Uint8Array): Promise<void> {
    for (let at = 0; at < slots.length; at += SLOT_BYTES)
      this.#lbas[position + at / SLOT_BYTES] = readSlotLba(slots, at);
    await this.#file.write(slots, slotOffset(position));
  }

  lost(): SlotSet {
    const lost = new SlotSet();
    for (const { position, count } of this.#live.runs())
      for (let i = position; i < position + count; i++) if (this.#lbas[i] === NOWHERE) lost.add(i, 1);
    return lost;
  }

  /**
   * Positions without a slot are of no data. A segment with lost slots gets no index: then whoever compacts it looks at
   * each slot, and finds that it must stay.
   */
  async #writeIndex(): Promise<void> {
    const { slots } = this.#live;
    const { bytes, covered } = encodeIndex(slots, (position) => {
      const lba = this.#lbas[position];
      return lba === NOWHERE ? { lba: 0, kind: SLOT_KIND_EXTENTS } : { lba, kind: SLOT_KIND_DATA };
    });
    bytes.set(metadataMac(this.#options.keys)(this.#segment, covered), covered.length);
    await this.#file.write(bytes, slotOffset(slots));
  }
}
