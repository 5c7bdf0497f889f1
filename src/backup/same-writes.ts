/**
 * Tells a block that merely moved since a backup from one that was written: both slots authenticate, and have the same
 * sequence and the same plaintext. The sequence alone would not do: a volume whose directory was set back gives the same ones
 * to other writes. Whatever can't be read, or does not authenticate, counts as written.
 */
import { errnoOf, isSealbdError } from '../base/errors.js';
import { BLOCK_BYTES, SEGMENT_SLOTS, SLOT_BYTES } from '../base/limits.js';
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

/** A part of a difference whose slots in the base are in one run of one backup, if in any. */
interface Piece {
  readonly before: number;
  readonly after: number;
  readonly count: number;
}

export class SameWrites {
  readonly #options: SameWritesOptions;
  readonly #present: FileCache;
  readonly #base = new Map<string, FileCache>();
  readonly #now: SlotWindow;
  readonly #then: SlotWindow;

  constructor(options: SameWritesOptions) {
    this.#options = options;
    this.#present = new FileCache((name) => options.store.open(name, 'read'), FILES_OPEN);
    this.#now = new SlotWindow(options.cipher);
    this.#then = new SlotWindow(options.cipher);
  }

  /** One byte a block: 1 where both slots hold the same write. Both must be mapped, each run within one segment. */
  async compare({ blocks, before, after }: Difference): Promise<Uint8Array> {
    const same = new Uint8Array(blocks);
    for (let done = 0; done < blocks; ) {
      const most = Math.min(WINDOW_SLOTS, blocks - done);
      done += await this.#comparePiece(
        { before: before + done, after: after + done, count: most },
        same,
        done,
      );
    }
    return same;
  }

  /** Returns how many blocks of the piece it got through. */
  async #comparePiece({ before, after, count: most }: Piece, same: Uint8Array, at: number): Promise<number> {
    const position = before % SEGMENT_SLOTS;
    const segment = this.#options.base.get((before - position) / SEGMENT_SLOTS);
    const part = segment?.parts.findLast(({ entry }) => entry.slots.has(position));
    const [run] = part?.entry.slots.runs(position, position + most) ?? [];
    // Another backup of the chain may have the ones that follow.
    const count = run?.count ?? 1;
    if (segment === undefined || part === undefined) return count;
    const sound = await quietly(async () => {
      await this.#readThen(segment, part, position, count);
      await this.#readNow(after, count);
    });
    if (sound) for (let i = 0; i < count; i++) same[at + i] = this.#isSame(i) ? 1 : 0;
    return count;
  }

  #isSame(i: number): boolean {
    const [now, then] = [this.#now, this.#then];
    if (now.valid[i] !== 1 || then.valid[i] !== 1) return false;
    const sequenceIn = ({ bytes }: SlotWindow) => readSlotMeta(bytes, i * SLOT_BYTES).sequence;
    if (sequenceIn(now) !== sequenceIn(then)) return false;
    const blockIn = ({ plain }: SlotWindow) => plain.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
    return Buffer.compare(blockIn(now), blockIn(then)) === 0;
  }

  async #readNow(slot: number, count: number): Promise<void> {
    const { present, keys } = this.#options;
    const position = slot % SEGMENT_SLOTS;
    const segment = present((slot - position) / SEGMENT_SLOTS);
    const file = await this.#present.get(segmentFileName(segment.id));
    const window = { first: 0, count, runs: [{ position, count }] };
    await readFromSegment(file, window, this.#now.bytes);
    await withSegmentKey(segment, keys, (key) => this.#now.check(key, [{ position, count }]));
  }

  async #readThen(
    segment: ChainSegment,
    { backup, entry }: ChainSegment['parts'][number],
    position: number,
    count: number,
  ): Promise<void> {
    const { baseKeys } = this.#options;
    const file = await this.#baseFile(backup, dataFileName(segment.id));
    await readFromData(file, { first: entry.slots.rank(position), count }, this.#then.bytes);
    await withSegmentKey(segment, baseKeys, (key) => this.#then.check(key, [{ position, count }]));
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
    this.#now.free();
    this.#then.free();
    for (const cache of [this.#present, ...this.#base.values()]) await cache.close();
  }
}

/** False where it can't be read. */
async function quietly(read: () => Promise<void>): Promise<boolean> {
  try {
    await read();
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ESHUTDOWN') throw error;
    if (errnoOf(error) === undefined && !isSealbdError(error)) throw error;
    return false;
  }
}
