/**
 * Volumes whose map is large and whose segments are sparse files: map, root and tail are real, and opening does not read
 * segments. Nobody's data is under the key.
 */
import { systemClock } from '../../src/base/clock.js';
import { BLOCK_BYTES, SEGMENT_SLOTS } from '../../src/base/limits.js';
import { nullLogger } from '../../src/base/log.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { addon, type KeyHandle } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import {
  SALT_BYTES,
  SEGMENT_KIND_HEAD,
  segmentFileBytes,
  segmentFileName,
} from '../../src/segment/format.js';
import { Segment } from '../../src/segment/segment.js';
import { FsStore } from '../../src/store/fs-store.js';
import { ChangeLog } from '../../src/volume/change-log.js';
import { type CheckpointRoot, encodeRoot, writeRoot } from '../../src/volume/checkpoint-root.js';
import { MapRuns, type SegmentChange } from '../../src/volume/map-runs.js';
import { SparePool } from '../../src/volume/spare-pool.js';
import type { VolumeTuning } from '../../src/volume/tuning.js';
import { Volume } from '../../src/volume/volume.js';
import { VolumeKeys } from '../../src/volume/volume-keys.js';

const DEK_ID = 1;
const SUITE = 2;
const UUID = new Uint8Array(16).fill(0x5a);
const KEY_BYTE = 7;
const WRITES_AT_ONCE = 256;

export interface Shape {
  readonly sizeBytes: number;
  /** Mapped blocks of 4 KiB, each alone, spread over all of the volume. */
  readonly blocks: number;
}

const key = (): KeyHandle => addon.keyImport(new Uint8Array(32).fill(KEY_BYTE));

/** The whole map in one sorted run, and a sparse file for each segment that it names. Returns the bytes of the map file. */
export async function buildSynthetic(path: string, shape: Shape): Promise<number> {
  const store = await FsStore.open(path, { create: true });
  const segments: SegmentChange[] = [];
  for (let index = 0; index * SEGMENT_SLOTS < shape.blocks; index++) {
    const salt = new Uint8Array(SALT_BYTES);
    addon.randomFill(salt);
    const id = index + 1;
    const common = { index, id, kind: SEGMENT_KIND_HEAD, suite: SUITE, dekId: DEK_ID } as const;
    const identity = { ...common, originUuid: UUID, salt };
    segments.push({ index, segment: new Segment(identity, SEGMENT_SLOTS, true), slots: SEGMENT_SLOTS });
    const file = await store.create(segmentFileName(id), 0);
    await file.truncate(segmentFileBytes(SEGMENT_SLOTS));
    await file.close();
  }
  const root: CheckpointRoot = {
    dekId: DEK_ID,
    generation: 1,
    lastSequence: shape.blocks,
    nextSegmentId: segments.length + 1,
    nextMapFileId: 1,
    headId: 0,
    headSlots: 0,
    preparedId: 0,
    sizeBytes: shape.sizeBytes,
    mappedBlocks: shape.blocks,
    runs: [],
    snapshots: [],
  };
  const dek = key();
  const segmentBytes = segmentFileBytes(SEGMENT_SLOTS);
  const sizes = { segmentBytes, mapBytes: segmentBytes, sparesMax: 0, reserveMax: 0 };
  const spares = new SparePool({ store, ...sizes, sealing: () => DEK_ID });
  const deks = new Map([[DEK_ID, dek]]);
  const keys = new VolumeKeys({ suite: SUITE, deks, activeDek: DEK_ID });
  const options = { store, uuid: UUID, deks, keys, spares, root, mapFiles: new Set<number>() };
  const files = new MapRuns(options);
  const runs = await files.extend([], [randomMap(shape)], segments);
  await writeRoot(store, encodeRoot(UUID, { ...root, nextMapFileId: files.nextFileId, runs }, dek));
  addon.keyRelease(dek);
  return runs.reduce((sum, run) => sum + run.bytes, 0);
}

/** Single blocks at random distances, each in a slot of its own at random. */
function randomMap({ sizeBytes, blocks }: Shape): ChangeLog {
  const slots = Uint32Array.from({ length: blocks }, (_, i) => i);
  for (let i = blocks - 1; i > 0; i--) {
    const other = Math.floor(Math.random() * (i + 1));
    const slot = slots[i];
    slots[i] = slots[other];
    slots[other] = slot;
  }
  const log = new ChangeLog();
  // Steps of 1 to gapMax blocks, so that all of them fit: 5 % of the volume is left for chance.
  const gapMax = Math.max(1, Math.floor((1.9 * sizeBytes) / BLOCK_BYTES / blocks) - 2);
  let lba = 0;
  for (const slot of slots) {
    log.append(lba, 1, slot);
    lba += 1 + Math.floor(Math.random() * gapMax);
  }
  return log;
}

export interface Opened {
  readonly volume: Volume;
  readonly seconds: number;
  /** Of all threads: what a machine that does nothing else would need at most, reading aside. */
  readonly cpuSeconds: number;
  close(): Promise<void>;
}

export async function openSynthetic(
  path: string,
  sizeBytes: number,
  tuning: Partial<VolumeTuning>,
): Promise<Opened> {
  const cipher = new CipherPool({ threads: 2 });
  const dek = key();
  const start = performance.now();
  const cpu = process.cpuUsage();
  const volume = await Volume.open({
    name: 'bench',
    uuid: UUID,
    sizeBytes,
    suite: SUITE,
    deks: new Map([[DEK_ID, dek]]),
    activeDek: DEK_ID,
    store: await FsStore.open(path),
    cipher,
    clock: systemClock,
    log: nullLogger,
    fresh: false,
    tuning,
  });
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const cpuSeconds = (user + system) / 1e6;
  const close = async (): Promise<void> => {
    await volume.stop(60_000);
    await cipher.destroy();
    addon.keyRelease(dek);
  };
  return { volume, seconds, cpuSeconds, close };
}

/** Writes single blocks anywhere in the volume. */
export async function writeRandom(volume: Volume, blocks: number): Promise<void> {
  const source = new Arena(BLOCK_BYTES);
  addon.randomFill(source.bytes);
  const spanBlocks = volume.sizeBytes / BLOCK_BYTES;
  for (let done = 0; done < blocks; ) {
    const some = Math.min(WRITES_AT_ONCE, blocks - done);
    const writes: (void | Promise<void>)[] = [];
    for (let i = 0; i < some; i++) {
      const lba = Math.floor(Math.random() * spanBlocks);
      writes.push(volume.write(source, 0, lba * BLOCK_BYTES, BLOCK_BYTES));
    }
    await Promise.all(writes);
    done += some;
  }
  source.free();
}
