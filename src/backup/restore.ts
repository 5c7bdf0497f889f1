/** Builds a volume from a chain of backups. */
import { SealbdError } from '../base/errors.js';
import { BACKUP_LANES, BLOCK_BYTES, SEGMENT_SLOTS } from '../base/limits.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import type { KeyHandle } from '../native/addon.js';
import type { Store } from '../store/store.js';
import type { BackupDirectory } from './backup-directory.js';
import { type ChainSegment, chainRuns, chainSegments } from './chain-map.js';
import { readData } from './data-reader.js';
import { damaged } from './names.js';
import { placeSegment } from './restored-segment.js';
import { SlotWindow } from './slot-scan.js';
import type { SlotSet } from './slot-set.js';
import { SyncQueue } from './sync-queue.js';
import { assertHas, assertMapped, mapProblems } from './verify.js';
import { buildImage } from './volume-image.js';

export interface RestoreOptions {
  readonly chain: readonly BackupDirectory[];
  /** Of the chain. */
  readonly keys: ReadonlyMap<number, KeyHandle>;
  /** A directory with the superblock of the new volume. */
  readonly store: Store;
  readonly uuid: Uint8Array;
  readonly dekId: number;
  readonly key: KeyHandle;
  readonly cipher: CipherPool;
  readonly salvage: boolean;
  readonly signal: AbortSignal;
  onProgress(doneBytes: number, totalBytes: number): void;
}

export interface RestoredBlocks {
  readonly blocks: number;
  /** Byte ranges of the device that read as EIO. */
  readonly lost: { offset: number; length: number }[];
}

/** INTEGRITY where anything of the chain is damaged; with `salvage`, where manifest, index or map of a backup are. */
export async function restoreChain(options: RestoreOptions): Promise<RestoredBlocks> {
  const { chain, keys, cipher } = options;
  const newest = chain[chain.length - 1];
  const segments = await chainSegments(chain);
  const runs = () => chainRuns(chain, keys);
  const idle = Array.from({ length: BACKUP_LANES }, () => new SlotWindow(cipher));
  const buffers = [...idle];
  const lost = new Map<number, SlotSet>();
  const placed = new Set<number>();
  const syncs = new SyncQueue();
  try {
    const { sizeBytes, sequence: lastSequence } = newest.manifest;
    const blocks = await buildImage({
      ...options,
      ...{ sizeBytes, lastSequence, lanes: BACKUP_LANES, runs, placed: () => syncs.end() },
      segmentOf: (lba, count, slot) => assertHas(segments, lba, count, slot),
      place: async (segment, live) => {
        const buffer = idle.pop()!;
        placed.add(segment.index);
        try {
          const missing = await placeSegment(segment as ChainSegment, live, { ...options, buffer, syncs });
          if (missing.count > 0) lost.set(segment.index, missing);
          return live.slots;
        } finally {
          idle.push(buffer);
        }
      },
    });
    assertMapped(newest, blocks);
    if (!options.salvage) await assertRestWhole(options, unused(segments, placed), buffers[0]);
    return { blocks, lost: lost.size === 0 ? [] : await lostRanges(runs(), lost) };
  } finally {
    await syncs.end().catch(() => undefined); // Told already, or there is another error.
    for (const buffer of buffers) buffer.free();
  }
}

function unused(segments: ReadonlyMap<number, ChainSegment>, placed: ReadonlySet<number>): ChainSegment[] {
  return [...segments.values()].filter(({ index }) => !placed.has(index));
}

/**
 * What the image takes nothing of, since newer backups of the chain supersede it, must be there and whole as well: what `verify`
 * calls damaged is not restored in silence. Checksums find each flipped byte; no slot of it comes into the volume.
 */
async function assertRestWhole(
  { chain, signal }: RestoreOptions,
  segments: readonly ChainSegment[],
  buffer: SlotWindow,
): Promise<void> {
  for (const backup of chain) {
    signal.throwIfAborted();
    const [problem] = await mapProblems(backup);
    if (problem !== undefined) throw new SealbdError('INTEGRITY', problem);
  }
  const nothing = { window: async () => undefined };
  for (const { backup, entry } of segments.flatMap(({ parts }) => parts)) {
    const problem = await readData({ backup, entry, buffer, keys: undefined, signal }, nothing);
    if (problem !== undefined) throw damaged(backup.path, problem);
  }
}

async function lostRanges(
  runs: ReturnType<typeof chainRuns>,
  lost: ReadonlyMap<number, SlotSet>,
): Promise<RestoredBlocks['lost']> {
  const ranges: { offset: number; length: number }[] = [];
  for await (const batch of runs) {
    for (let i = 0; i < batch.count; i++) {
      const position = batch.slot[i] % SEGMENT_SLOTS;
      const missing = lost.get((batch.slot[i] - position) / SEGMENT_SLOTS);
      if (missing === undefined) continue;
      for (const run of missing.runs(position, position + batch.blocks[i])) {
        const offset = (batch.lba[i] + run.position - position) * BLOCK_BYTES;
        const last = ranges.at(-1);
        if (last !== undefined && last.offset + last.length === offset)
          last.length += run.count * BLOCK_BYTES;
        else ranges.push({ offset, length: run.count * BLOCK_BYTES });
      }
    }
  }
  return ranges;
}
