/**
 * Tells a block that merely moved since a backup from one that was written: both slots authenticate and have the same
 * sequence. Whatever can't be read, or does not authenticate, counts as written.
 */
import { errnoOf, isSealbdError } from '../base/errors.js';
import { SEGMENT_SLOTS, SLOT_BYTES } from '../base/limits.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import type { KeyHandle } from '../native/addon.js';
import { readSlotMeta, segmentFileName } from '../segment/format.js';
import type { SegmentIdentity } from '../segment/segment.js';
import type { Store } from '../store/store.js';
import type { ChainSegment } from './chain-map.js';
import { FileCache } from './file-cache.js';
import type { Difference } from './map-diff.js';
import { dataFileName } from './names.js';
import { readFromData, readFromSegment } from './packed-slots.js';
import { SlotWindow, WINDOW_SLOTS, withSegmentKey } from './slot-scan.js';

export interface SameWritesOptions {
  readonly store: Store;
  /** Segments of the present map by index of the chain. */
  readonly present: (index: number) => SegmentIdentity;
  readonly base: ReadonlyMap<number, ChainSegment>;
  /** Of the volume, and of the chain. */
  readonly keys: ReadonlyMap<number, KeyHandle>;
  readonly baseKeys: ReadonlyMap<number, KeyHandle>;
  readonly cipher: CipherPool;
}

const FILES_OPEN = 32;
const NONE = -1;

export class SameWrites {
  readonly #options: SameWritesOptions;
  readonly #present: FileCache;
  readonly #base = new Map<string, FileCache>();
  readonly #window: SlotWindow;

  constructor(options: SameWritesOptions) {
    this.#options = options;
    this.#present = new FileCache((name) => options.store.open(name, 'read'), FILES_OPEN);
    this.#window = new SlotWindow(options.cipher);
  }

  /** One byte a block: 1 where both slots hold the same write. Both must be mapped. */
  async compare({ blocks, before, after }: Difference): Promise<Uint8Array> {
    const same = new Uint8Array(blocks);
    for (let done = 0; done < blocks; done += WINDOW_SLOTS) {
      const count = Math.min(WINDOW_SLOTS, blocks - done);
      const now = await this.#quietly(count, () => this.#sequencesNow(after + done, count));
      const then = await this.#quietly(count, () => this.#sequencesThen(before + done, count));
      for (let i = 0; i < count; i++) if (now[i] !== NONE && now[i] === then[i]) same[done + i] = 1;
    }
    return same;
  }

  async #quietly(count: number, read: () => Promise<Float64Array>): Promise<Float64Array> {
    try {
      return await read();
    } catch (error) {
      if (errnoOf(error) === 'ESHUTDOWN') throw error;
      if (errnoOf(error) === undefined && !isSealbdError(error)) throw error;
      return new Float64Array(count).fill(NONE);
    }
  }

  async #sequencesNow(slot: number, count: number): Promise<Float64Array> {
    const position = slot % SEGMENT_SLOTS;
    const segment = this.#options.present((slot - position) / SEGMENT_SLOTS);
    const file = await this.#present.get(segmentFileName(segment.id));
    const window = { first: 0, count, runs: [{ position, count }] };
    await readFromSegment(file, window, this.#window.bytes);
    return this.#sequences(segment, this.#options.keys, position, count);
  }

  async #sequencesThen(slot: number, count: number): Promise<Float64Array> {
    const { base, baseKeys } = this.#options;
    const sequences = new Float64Array(count).fill(NONE);
    const first = slot % SEGMENT_SLOTS;
    const segment = base.get((slot - first) / SEGMENT_SLOTS);
    if (segment === undefined) return sequences;
    for (let done = 0; done < count; ) {
      const position = first + done;
      const part = segment.parts.findLast(({ entry }) => entry.slots.has(position));
      const [run] = part?.entry.slots.runs(position, first + count) ?? [];
      // Another backup of the chain may have the ones that follow.
      const length = run?.count ?? 1;
      if (part !== undefined) {
        const file = await this.#baseFile(part.backup, dataFileName(segment.id));
        const window = { first: part.entry.slots.rank(position), count: length };
        await readFromData(file, window, this.#window.bytes);
        sequences.set(await this.#sequences(segment, baseKeys, position, length), done);
      }
      done += length;
    }
    return sequences;
  }

  async #sequences(
    segment: SegmentIdentity,
    keys: ReadonlyMap<number, KeyHandle>,
    position: number,
    count: number,
  ): Promise<Float64Array> {
    await withSegmentKey(segment, keys, (key) => this.#window.check(key, [{ position, count }]));
    const sequences = new Float64Array(count).fill(NONE);
    for (let i = 0; i < count; i++)
      if (this.#window.valid[i] === 1)
        sequences[i] = readSlotMeta(this.#window.bytes, i * SLOT_BYTES).sequence;
    return sequences;
  }

  #baseFile(backup: ChainSegment['parts'][number]['backup'], name: string) {
    let cache = this.#base.get(backup.path);
    if (cache === undefined) {
      cache = new FileCache((each) => backup.openFile(each), FILES_OPEN);
      this.#base.set(backup.path, cache);
    }
    return cache.get(name);
  }

  async close(): Promise<void> {
    this.#window.free();
    for (const cache of [this.#present, ...this.#base.values()]) await cache.close();
  }
}
