/** Copies slots of a volume's segments into data files, as they are (docs/FORMAT.md, "Backup"). */
import { errnoOf, messageOf, SealbdError } from '../base/errors.js';
import { forEachLimited } from '../base/limited.js';
import { ARENA_CHUNK_BYTES, BACKUP_LANES, SEGMENT_HEADER_BYTES, SLOT_BYTES } from '../base/limits.js';
import { addon, type KeyHandle } from '../native/addon.js';
import { Arena } from '../native/arena.js';
import { segmentFileName } from '../segment/format.js';
import type { SegmentIdentity } from '../segment/segment.js';
import type { Store, StoreFile } from '../store/store.js';
import type { NeededSegment } from './changes.js';
import type { IndexEntry } from './index-codec.js';
import { dataFileName } from './names.js';
import { packedOffset, readFromSegment, type Window, windows } from './packed-slots.js';
import { freshHeader, isHeaderOf } from './segment-header.js';
import { WINDOW_SLOTS } from './slot-scan.js';
import { SyncQueue } from './sync-queue.js';

export interface CopyOptions {
  readonly from: Store;
  readonly to: Store;
  readonly keys: ReadonlyMap<number, KeyHandle>;
  /** Leaves zeros, which authenticate as nothing, where the volume has lost slots. */
  readonly salvage: boolean;
  readonly signal: AbortSignal;
  /** After so many bytes, copied since `startedAt`: the place to give way to others. */
  copied(bytes: number, startedAt: number): Promise<void>;
  now(): number;
}

export interface CopiedData {
  /** By index. */
  readonly entries: readonly IndexEntry[];
  /** Slots that the volume has lost. */
  readonly lostSlots: number;
}

export async function copyData(
  segments: readonly NeededSegment<SegmentIdentity>[],
  options: CopyOptions,
): Promise<CopiedData> {
  const idle = Array.from({ length: BACKUP_LANES }, () => new Arena(ARENA_CHUNK_BYTES));
  const arenas = [...idle];
  const entries: IndexEntry[] = [];
  const syncs = new SyncQueue();
  let lostSlots = 0;
  try {
    await forEachLimited(segments, BACKUP_LANES, async (segment) => {
      const arena = idle.pop()!;
      try {
        const copy = new SegmentCopy(segment, options, syncs, arena.bytes);
        entries.push(await copy.run());
        lostSlots += copy.lostSlots;
      } finally {
        idle.push(arena);
      }
    });
  } finally {
    for (const arena of arenas) arena.free();
    await syncs.end();
  }
  return { entries: entries.sort((a, b) => a.index - b.index), lostSlots };
}

class SegmentCopy {
  readonly #segment: NeededSegment<SegmentIdentity>;
  readonly #options: CopyOptions;
  readonly #syncs: SyncQueue;
  readonly #buffer: Uint8Array;
  #crc = 0;
  lostSlots = 0;

  constructor(
    segment: NeededSegment<SegmentIdentity>,
    options: CopyOptions,
    syncs: SyncQueue,
    buffer: Uint8Array,
  ) {
    this.#segment = segment;
    this.#options = options;
    this.#syncs = syncs;
    this.#buffer = buffer;
  }

  async run(): Promise<IndexEntry> {
    const { to } = this.#options;
    const { index, source, slots } = this.#segment;
    const file = await this.#source();
    try {
      const target = await to.create(dataFileName(source.id), 0);
      try {
        await this.#put(target, await this.#header(file), 0);
        for (const window of windows(slots, WINDOW_SLOTS)) await this.#window(file, target, window);
      } catch (error) {
        await target.close();
        throw error;
      }
      await this.#syncs.add(target);
    } finally {
      await file?.close();
    }
    const { id, kind, suite, dekId, originUuid, salt } = source;
    return { index, id, kind, suite, dekId, originUuid, salt, slots, crc: this.#crc };
  }

  /** Undefined where the volume has lost it. */
  async #source(): Promise<StoreFile | undefined> {
    const name = segmentFileName(this.#segment.source.id);
    try {
      return await this.#options.from.open(name, 'read');
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
      this.#lose(`${name} can not be read: ${messageOf(error)}`);
      return undefined;
    }
  }

  async #header(file: StoreFile | undefined): Promise<Uint8Array> {
    const { keys } = this.#options;
    const { source } = this.#segment;
    const bytes = this.#buffer.subarray(0, SEGMENT_HEADER_BYTES);
    const isRead =
      file !== undefined && (await readable(async () => (await file.read(bytes, 0)) === bytes.length));
    if (isRead && isHeaderOf(bytes, source, keys)) return bytes;
    this.#lose(`the header of ${segmentFileName(source.id)} is damaged`);
    return freshHeader(source, keys);
  }

  async #window(file: StoreFile | undefined, target: StoreFile, window: Window): Promise<void> {
    const { signal, copied, now } = this.#options;
    signal.throwIfAborted();
    const startedAt = now();
    const bytes = this.#buffer.subarray(0, window.count * SLOT_BYTES);
    if (file === undefined || !(await this.#read(file, window))) {
      this.#lose(`${segmentFileName(this.#segment.source.id)} is too short, or can not be read`);
      bytes.fill(0);
      this.lostSlots += window.count;
    }
    await this.#put(target, bytes, packedOffset(window.first));
    await copied(bytes.length, startedAt);
  }

  #read(file: StoreFile, window: Window): Promise<boolean> {
    return readable(() => readFromSegment(file, window, this.#buffer));
  }

  async #put(target: StoreFile, bytes: Uint8Array, position: number): Promise<void> {
    this.#crc = addon.crc32c(bytes, this.#crc);
    await target.write(bytes, position);
  }

  /** A backup of what is lost must be asked for. */
  #lose(problem: string): void {
    if (this.#options.salvage) return;
    throw new SealbdError(
      'INTEGRITY',
      `the volume is damaged ("volume verify" tells what is lost): ${problem}`,
    );
  }
}

/** What a read of a file fails with where the medium has lost it: EIO alone is not what all drivers and file systems say. */
const LOST = ['EIO', 'EREMOTEIO', 'ENODATA', 'EILSEQ', 'EBADMSG', 'EUCLEAN'];

/** False too where the medium can't give it. */
async function readable(read: () => Promise<boolean>): Promise<boolean> {
  try {
    return await read();
  } catch (error) {
    if (!LOST.includes(errnoOf(error) ?? '')) throw error;
    return false;
  }
}
