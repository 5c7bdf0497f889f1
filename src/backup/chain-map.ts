/** The map of a chain of backups: which block is in which slot of which segment. */
import { bytesEqual } from '../base/bytes.js';
import { SEGMENT_SLOTS } from '../base/limits.js';
import type { KeyHandle } from '../native/addon.js';
import type { SegmentIdentity } from '../segment/segment.js';
import { mergeAll } from '../volume/map-file/merge.js';
import { MapFileReader } from '../volume/map-file/reader.js';
import { RunBatch, type RunSource } from '../volume/map-file/run-batch.js';
import type { MapFileIdentity } from '../volume/map-file/writer.js';
import type { BackupDirectory } from './backup-directory.js';
import type { IndexEntry } from './index-codec.js';
import type { Manifest } from './manifest.js';
import { damaged, MAP, MAP_FILE_ID } from './names.js';

/** A segment of a chain, and where its slots are. */
export interface ChainSegment extends SegmentIdentity {
  readonly parts: readonly { readonly backup: BackupDirectory; readonly entry: IndexEntry }[];
}

/** By segment index. INTEGRITY where two backups of the chain do not mean the same by one. */
export async function chainSegments(chain: readonly BackupDirectory[]): Promise<Map<number, ChainSegment>> {
  const segments = new Map<number, ChainSegment>();
  for (const backup of chain) {
    for (const entry of await backup.index()) {
      const known = segments.get(entry.index);
      if (known !== undefined && !isSameSegment(known, entry))
        throw damaged(backup.path, `segment index ${entry.index} is another segment in its base`);
      const { index, id, kind, suite, dekId, originUuid, salt } = entry;
      const parts = [...(known?.parts ?? []), { backup, entry }];
      segments.set(index, { index, id, kind, suite, dekId, originUuid, salt, parts });
    }
  }
  return segments;
}

export function isSameSegment(one: SegmentIdentity, other: SegmentIdentity): boolean {
  return (
    one.id === other.id &&
    one.suite === other.suite &&
    one.kind === other.kind &&
    one.dekId === other.dekId &&
    bytesEqual(one.originUuid, other.originUuid) &&
    bytesEqual(one.salt, other.salt)
  );
}

/** The mapped runs of the newest state, in order; no run goes on from one segment into the next. */
export function chainRuns(
  chain: readonly BackupDirectory[],
  keys: ReadonlyMap<number, KeyHandle>,
): AsyncGenerator<RunBatch> {
  const maps = chain.map((backup) => readMap(backup, keys));
  return cutAtSegments(mergeAll(maps, { dropTombstones: true }), (index) => index);
}

async function* readMap(
  backup: BackupDirectory,
  keys: ReadonlyMap<number, KeyHandle>,
): AsyncGenerator<RunBatch> {
  const { manifest } = backup;
  const key = keys.get(manifest.dekId);
  if (key === undefined) throw damaged(backup.path, `DEK ${manifest.dekId} is not at hand`);
  const file = await backup.openFile(MAP);
  try {
    const found = await file.size();
    if (found !== manifest.map.bytes)
      throw damaged(backup.path, `${MAP} has ${found} bytes instead of ${manifest.map.bytes}`);
    const source = { sizeBytes: found, read: (bytes: Uint8Array, at: number) => file.read(bytes, at) };
    const reader = await MapFileReader.open(source, mapIdentity(manifest, key), {
      base: manifest.base === undefined,
    });
    for await (const _ of reader.segments()) throw damaged(backup.path, `${MAP} has segment entries`);
    yield* reader.runs();
  } finally {
    await file.close();
  }
}

/** What a map file of a backup says of itself, and the key of its MACs. */
export function mapIdentity(
  {
    dekId,
    backupUuid,
    map,
  }: Pick<Manifest, 'dekId' | 'backupUuid'> & { readonly map: { readonly salt: Uint8Array } },
  key: KeyHandle,
): MapFileIdentity {
  return { dekId, uuid: backupUuid, fileId: MAP_FILE_ID, salt: map.salt, key };
}

const BATCH_RUNS = 1024;

/** Cuts runs where a segment ends, and puts another index in place of each. */
export async function* cutAtSegments(
  runs: RunSource,
  indexOf: (index: number) => number,
): AsyncGenerator<RunBatch> {
  const out = new RunBatch(BATCH_RUNS);
  for await (const batch of runs) {
    for (let i = 0; i < batch.count; i++) {
      const end = batch.lba[i] + batch.blocks[i];
      let { slot, lba } = { slot: batch.slot[i], lba: batch.lba[i] };
      while (lba < end) {
        const position = slot % SEGMENT_SLOTS;
        const blocks = Math.min(end - lba, SEGMENT_SLOTS - position);
        out.push(lba, blocks, indexOf((slot - position) / SEGMENT_SLOTS) * SEGMENT_SLOTS + position);
        lba += blocks;
        slot += blocks;
        if (out.count < out.capacity) continue;
        yield out;
        out.count = 0;
      }
    }
  }
  if (out.count > 0) yield out;
}
