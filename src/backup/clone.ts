/** Builds a volume from a snapshot of another one of the same daemon (docs/FORMAT.md, "Restoring, cloning"). */
import { SealbdError } from '../base/errors.js';
import { ARENA_CHUNK_BYTES, BACKUP_LANES, SEGMENT_SLOTS } from '../base/limits.js';
import type { KeyHandle } from '../native/addon.js';
import { indexBytes, segmentFileName, slotOffset } from '../segment/format.js';
import { linkFile } from '../store/link-file.js';
import type { Store } from '../store/store.js';
import type { PinnedSegment, PinnedVolume } from '../volume/pin.js';
import { cutAtSegments } from './chain-map.js';
import { buildImage } from './volume-image.js';

export interface CloneOptions {
  readonly source: PinnedVolume;
  readonly from: Store;
  /** A directory with the superblock of the new volume. */
  readonly store: Store;
  readonly uuid: Uint8Array;
  readonly dekId: number;
  readonly key: KeyHandle;
  readonly signal: AbortSignal;
  onProgress(doneBytes: number, totalBytes: number): void;
}

/** Returns the blocks that the clone maps. What the volume has lost, the clone has lost too. */
export function cloneSnapshot(options: CloneOptions): Promise<number> {
  const { source, from, store, signal } = options;
  const { sizeBytes, sequence: lastSequence } = source;
  return buildImage({
    ...options,
    ...{ sizeBytes, lastSequence, lanes: BACKUP_LANES, placed: async () => undefined },
    runs: () => cutAtSegments(source.runs(), (index) => index),
    segmentOf: (lba, _blocks, slot) => segmentOf(source, lba, slot),
    place: async (segment, live) => {
      const { id, slots, sealed, lost } = segment as PinnedSegment;
      if (lost !== undefined) return live.slots; // Its file is missing, or too short: so it is in the clone.
      const name = segmentFileName(id);
      if (sealed && (await linkFile(from, store, name))) return slots;
      await copyPrefix(from, store, name, slotOffset(slots) + (sealed ? indexBytes(slots) : 0), signal);
      return slots;
    },
  });
}

function segmentOf(source: PinnedVolume, lba: number, slot: number): PinnedSegment {
  const segment = source.segment(Math.floor(slot / SEGMENT_SLOTS));
  if (segment !== undefined) return segment;
  throw new SealbdError('INTEGRITY', `block ${lba} is in no segment of the snapshot`);
}

/** As much of the file as there is, up to `bytes`: slots of the cut, and what follows them where the segment is sealed. */
async function copyPrefix(
  from: Store,
  to: Store,
  name: string,
  bytes: number,
  signal: AbortSignal,
): Promise<void> {
  const buffer = new Uint8Array(ARENA_CHUNK_BYTES);
  const source = await from.open(name, 'read');
  try {
    const target = await to.create(name, 0);
    try {
      for (let at = 0; at < bytes; ) {
        signal.throwIfAborted();
        const read = await source.read(buffer.subarray(0, Math.min(buffer.length, bytes - at)), at);
        if (read === 0) break;
        await target.write(buffer.subarray(0, read), at);
        at += read;
      }
      await target.sync();
    } finally {
      await target.close();
    }
  } finally {
    await source.close();
  }
}
