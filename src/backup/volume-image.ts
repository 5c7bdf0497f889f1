/**
 * Builds the files of a volume from segments of another one: restoring and cloning (docs/FORMAT.md, "Restoring, cloning").
 * The root comes last; until the directory has a volume's name, none of it counts.
 */

import { forEachLimited } from '../base/limited.js';
import { SEGMENT_SLOTS, SLOT_BYTES } from '../base/limits.js';
import { addon, type KeyHandle } from '../native/addon.js';
import { SALT_BYTES } from '../segment/format.js';
import type { SegmentIdentity } from '../segment/segment.js';
import type { Store } from '../store/store.js';
import { createWhole } from '../store/whole-file.js';
import { encodeRoot, type RunRef, writeRoot } from '../volume/checkpoint-root.js';
import { mapFileName, type SegmentEntry } from '../volume/map-file/codec.js';
import type { RunSource } from '../volume/map-file/run-batch.js';
import { writeMapFile } from '../volume/map-file/writer.js';
import { cutAtSegments } from './chain-map.js';
import { SlotSet } from './slot-set.js';

export interface ImageOptions {
  readonly store: Store;
  readonly uuid: Uint8Array;
  /** The DEK of the new volume, and its key. */
  readonly dekId: number;
  readonly key: KeyHandle;
  readonly sizeBytes: number;
  readonly lastSequence: number;
  /** Segments that are placed side by side. */
  readonly lanes: number;
  readonly signal: AbortSignal;
  /** The mapped runs in order; none goes on from one segment into the next. Asked for twice. */
  runs(): RunSource;
  /** The segment behind an index of `runs`; throws INTEGRITY where it has no such slots. */
  segmentOf(lba: number, blocks: number, slot: number): SegmentIdentity;
  /** Makes `seg-<id>` with the live slots at their positions. Resolves to the slots that its index is behind. */
  place(segment: SegmentIdentity, live: SlotSet): Promise<number>;
  /** Resolves when all of them are durable. */
  placed(): Promise<void>;
  onProgress(doneBytes: number, totalBytes: number): void;
}

interface LiveSegment {
  readonly segment: SegmentIdentity;
  readonly live: SlotSet;
  slots: number;
}

/** Returns the blocks that the volume maps. */
export async function buildImage(options: ImageOptions): Promise<number> {
  const found = await liveSegments(options);
  const segments = [...found.values()].sort((a, b) => a.segment.index - b.segment.index);
  const blocks = segments.reduce((sum, { live }) => sum + live.count, 0);
  let done = 0;
  options.onProgress(0, blocks * SLOT_BYTES);
  await forEachLimited(segments, options.lanes, async (entry) => {
    const { segment, live } = entry;
    options.signal.throwIfAborted();
    entry.slots = await options.place(segment, live);
    done += live.count;
    options.onProgress(done * SLOT_BYTES, blocks * SLOT_BYTES);
  });
  const run = await writeMap(options, segments);
  await options.placed();
  await options.store.syncDirectory();
  await publish(options, segments, run, blocks);
  return blocks;
}

async function liveSegments({ runs, segmentOf, signal }: ImageOptions): Promise<Map<number, LiveSegment>> {
  const found = new Map<number, LiveSegment>();
  for await (const batch of runs()) {
    signal.throwIfAborted();
    for (let i = 0; i < batch.count; i++) {
      const [lba, blocks, slot] = [batch.lba[i], batch.blocks[i], batch.slot[i]];
      const segment = segmentOf(lba, blocks, slot);
      let entry = found.get(segment.index);
      if (entry === undefined) {
        entry = { segment, live: new SlotSet(), slots: 0 };
        found.set(segment.index, entry);
      }
      entry.live.add(slot % SEGMENT_SLOTS, blocks);
    }
  }
  return found;
}

const FILE_ID = 1;

/** Indexes of the new volume are dense, from 0 on. */
async function writeMap(options: ImageOptions, segments: readonly LiveSegment[]): Promise<RunRef> {
  const { store, uuid, dekId, key } = options;
  const salt = new Uint8Array(SALT_BYTES);
  addon.randomFill(salt);
  const dense = new Map(segments.map(({ segment }, i) => [segment.index, i]));
  const entries = segments.map(({ segment, slots }, index): SegmentEntry => {
    const { kind, suite, dekId: under, originUuid, salt: its, id } = segment;
    const record = { kind, suite, dekId: under, slots, segmentId: id, originUuid, salt: its };
    return { index, segment: record };
  });
  const identity = { dekId, uuid, fileId: FILE_ID, salt, key };
  const runs = cutAtSegments(options.runs(), (index) => dense.get(index)!);
  const { bytes, mapEntries, segmentEntries } = await createWhole(store, mapFileName(FILE_ID), (file) =>
    writeMapFile(file, identity, runs, entries),
  );
  return { fileId: FILE_ID, dekId, salt, bytes, mapEntries, segmentEntries };
}

async function publish(
  { store, uuid, dekId, key, sizeBytes, lastSequence }: ImageOptions,
  segments: readonly LiveSegment[],
  run: RunRef,
  mappedBlocks: number,
): Promise<void> {
  const nextSegmentId = segments.reduce((max, { segment }) => Math.max(max, segment.id), 0) + 1;
  const root = {
    ...{
      dekId,
      generation: 1,
      lastSequence,
      nextSegmentId,
      nextMapFileId: FILE_ID + 1,
      sizeBytes,
      mappedBlocks,
    },
    ...{ headId: 0, headSlots: 0, preparedId: 0, runs: [run], snapshots: [] },
  };
  await writeRoot(store, encodeRoot(uuid, root, key));
}
