/** Makes a backup of a cut of a volume: map, data, index, and last of all the manifest (docs/FORMAT.md, "Backup"). */
import { createHash } from 'node:crypto';
import { bytesEqual } from '../base/bytes.js';
import type { Suite } from '../base/ciphers.js';
import { SealbdError } from '../base/errors.js';
import { ARENA_CHUNK_BYTES, SLOT_BYTES } from '../base/limits.js';
import type { RandomSource } from '../base/random.js';
import { formatUuid, randomUuid } from '../base/random.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import type { DekRecord } from '../keys/dek-record.js';
import type { Lineage } from '../keys/origins.js';
import { addon, type KeyHandle, SUITE_NONE } from '../native/addon.js';
import { SALT_BYTES } from '../segment/format.js';
import type { SegmentIdentity } from '../segment/segment.js';
import type { Store } from '../store/store.js';
import { createWhole } from '../store/whole-file.js';
import { writeMapFile } from '../volume/map-file/writer.js';
import type { PinnedVolume } from '../volume/pin.js';
import type { BackupDirectory } from './backup-directory.js';
import { assertMayGrow, assertRestorable, type ChainLimits } from './chain-limits.js';
import { type ChainSegment, chainRuns, chainSegments, mapIdentity } from './chain-map.js';
import { ChainIndexes, changes } from './changes.js';
import { claimDirectory, clearDirectory, finishDirectory, nameManifest } from './claim.js';
import { type CopyOptions, copyData } from './data-writer.js';
import { encodeIndex } from './index-codec.js';
import { encodeManifest, type Manifest, sha256 } from './manifest.js';
import { INDEX, MAP } from './names.js';
import { SameWrites } from './same-writes.js';

/** What the superblock says of the volume at this moment. */
export interface VolumeFacts extends Lineage {
  readonly suite: Suite;
  readonly plain: boolean;
  readonly name: string;
  readonly deks: readonly DekRecord[];
  /** The newest DEK; 0 in `none`. */
  readonly dekId: number;
}

export interface BaseChain {
  readonly chain: readonly BackupDirectory[];
  readonly keys: ReadonlyMap<number, KeyHandle>;
  /** The path to note in the manifest. */
  readonly path: string;
}

export interface BackupLedger {
  /** The directory is claimed, and nothing is in it yet. */
  begun(facts: VolumeFacts): Promise<void>;
  /** The next step gives the manifest its name. */
  complete(manifest: Manifest): Promise<void>;
  /** The directory was cleared: there is no backup. */
  cleared(): Promise<void>;
  /** Nothing is done in the directory any more. */
  ended(): void;
}

export interface CreateOptions extends Omit<CopyOptions, 'copied'> {
  readonly source: PinnedVolume;
  readonly base: BaseChain | undefined;
  readonly cipher: CipherPool;
  readonly random: RandomSource;
  /** Asked twice: when the cut is there, and last of all, so that wraps are not out of date. */
  facts(): Promise<VolumeFacts>;
  /** Learns of the backup before it is one. */
  readonly ledger?: BackupLedger;
  /** Lower in tests. */
  readonly limits?: ChainLimits;
  onProgress(doneBytes: number, totalBytes: number): void;
  /** Lets others go first, where there are any. */
  pace(startedAt: number): Promise<void>;
}

export interface CreatedBackup {
  readonly manifest: Manifest;
  readonly lostSlots: number;
}

/**
 * CONFLICT, and nothing is made, where it can't stand on its base, or could never be restored. What fails before the manifest has
 * its name leaves an empty directory, or one that says that it is unfinished; what fails after it leaves the whole backup.
 */
export async function createBackup(options: CreateOptions): Promise<CreatedBackup> {
  const before = await options.facts();
  assertPossible(options, before);
  const marker = await claimDirectory(options.to);
  try {
    const created = await fillOrClear(options, before);
    await finishDirectory(options.to);
    return created;
  } finally {
    options.ledger?.ended();
    await marker.close();
  }
}

function assertPossible({ base, source, limits }: CreateOptions, facts: VolumeFacts): void {
  if (base !== undefined) {
    assertBase(base, facts, source);
    assertMayGrow(base.chain, limits);
  }
  const needed = new Set([facts.dekId, ...source.segments().map((segment) => segment.dekId)]);
  const deks = facts.deks.filter((dek) => needed.has(dek.id));
  assertRestorable(base?.chain ?? [], facts, deks, limits);
}

async function fillOrClear(options: CreateOptions, before: VolumeFacts): Promise<CreatedBackup> {
  try {
    return await fill(options, before);
  } catch (error) {
    const isCleared = await clearDirectory(options.to).catch(() => false); // The next attempt clears it.
    if (isCleared) await options.ledger?.cleared();
    throw error;
  }
}

async function fill(options: CreateOptions, before: VolumeFacts): Promise<CreatedBackup> {
  const { source, base, keys, random } = options;
  await options.ledger?.begun(before);
  const key = keys.get(before.dekId)!;
  const known = base === undefined ? new Map<number, ChainSegment>() : await chainSegments(base.chain);
  const next = base?.chain.at(-1)?.manifest.nextIndex ?? 0;
  const indexes = new ChainIndexes(source.segments(), known, next);
  const backupUuid = randomUuid(random);
  const salt = new Uint8Array(SALT_BYTES);
  addon.randomFill(salt);
  const map = await writeMap(
    options,
    indexes,
    known,
    { dekId: before.dekId, backupUuid, map: { salt } },
    key,
  );
  const needed = indexes.needed();
  const slots = needed.reduce((sum, segment) => sum + segment.slots.count, 0);
  const { entries, lostSlots } = await copyNeeded(options, needed, slots);
  const index = encodeIndex(entries);
  await createWhole(options.to, INDEX, (file) => file.write(index, 0));
  const { dekId, suite, plain, uuid, origins } = before;
  const { sizeBytes, sequence, mappedBlocks, createdAtMs: createdAt } = source;
  const { name, deks } = await options.facts();
  const ids = new Set([dekId, ...entries.map((entry) => entry.dekId)]);
  const wrapped = neededDeks(ids, dekId, [before.deks, deks]);
  assertRestorable(base?.chain ?? [], before, wrapped, options.limits); // The wraps may be other ones by now.
  const manifest: Manifest = {
    ...{ suite, plain, dekId, uuid, origins, backupUuid, createdAt, name },
    ...{ sizeBytes, sequence, mappedBlocks, slots, segments: entries.length, nextIndex: indexes.next },
    index: { bytes: index.length, sha256: sha256(index) },
    map: { ...map, salt },
    deks: wrapped,
    base: base === undefined ? undefined : baseRef(base),
  };
  await options.ledger?.complete(manifest);
  await nameManifest(options.to, encodeManifest(manifest, key));
  return { manifest, lostSlots };
}

function assertBase(
  { chain, path }: BaseChain,
  { uuid, suite }: VolumeFacts,
  { sequence }: PinnedVolume,
): void {
  const { manifest } = chain[chain.length - 1];
  const refuse = (why: string): never => {
    throw new SealbdError('CONFLICT', `${path} ${why}: make a full backup`);
  };
  if (!bytesEqual(manifest.uuid, uuid))
    refuse(`is a backup of volume ${formatUuid(manifest.uuid)}, this is ${formatUuid(uuid)}`);
  if (manifest.sequence > sequence) refuse('is newer than the volume, whose directory was set back');
  // What was converted since would stand on plaintext.
  if (suite !== SUITE_NONE && chain.some(({ manifest: one }) => one.suite === SUITE_NONE || one.plain))
    refuse('is of the time when not all of the volume was encrypted');
}

function baseRef({ chain, path }: BaseChain): NonNullable<Manifest['base']> {
  const newest = chain[chain.length - 1];
  return { backupUuid: newest.manifest.backupUuid, digest: newest.decoded.digest, path };
}

/** The newest wrap of each. One that left the superblock meanwhile has the wrap that it had. */
function neededDeks(
  ids: ReadonlySet<number>,
  active: number,
  [before, after]: readonly (readonly DekRecord[])[],
): DekRecord[] {
  const newest = new Map([...before, ...after].map((dek) => [dek.id, dek]));
  return [...newest.values()]
    .filter((dek) => ids.has(dek.id))
    .sort((a, b) => a.id - b.id)
    .map((dek) => ({ ...dek, state: dek.id === active ? 'active' : 'retired' }));
}

async function writeMap(
  options: CreateOptions,
  indexes: ChainIndexes<SegmentIdentity>,
  known: ReadonlyMap<number, ChainSegment>,
  named: Parameters<typeof mapIdentity>[0],
  key: KeyHandle,
): Promise<{ bytes: number; sha256: Uint8Array }> {
  const { source, base, keys, cipher, signal } = options;
  const present = (index: number) => indexes.get(index).source;
  const sameWrites =
    base === undefined
      ? undefined
      : new SameWrites({ store: options.from, present, base: known, keys, baseKeys: base.keys, cipher });
  try {
    const runs = changes({
      ...{ indexes, sameWrites, signal, present: source.runs() },
      base: base === undefined ? undefined : chainRuns(base.chain, base.keys),
    });
    const { bytes } = await createWhole(options.to, MAP, (file) =>
      writeMapFile(file, mapIdentity(named, key), runs, []),
    );
    return { bytes, sha256: await hashFile(options.to, MAP) };
  } finally {
    await sameWrites?.close();
  }
}

function copyNeeded(
  options: CreateOptions,
  needed: ReturnType<ChainIndexes<SegmentIdentity>['needed']>,
  slots: number,
) {
  let done = 0;
  const total = slots * SLOT_BYTES;
  options.onProgress(0, total);
  const copied = async (bytes: number, startedAt: number): Promise<void> => {
    done += bytes;
    options.onProgress(done, total);
    await options.pace(startedAt);
  };
  return copyData(needed, { ...options, copied });
}

/** The header of a map is written last, so it is hashed from the file. */
async function hashFile(store: Store, name: string): Promise<Uint8Array> {
  const hash = createHash('sha256');
  const buffer = new Uint8Array(ARENA_CHUNK_BYTES);
  const file = await store.open(name, 'read');
  try {
    for (let at = 0; ; ) {
      const read = await file.read(buffer, at);
      hash.update(buffer.subarray(0, read));
      at += read;
      if (read < buffer.length) return Uint8Array.from(hash.digest());
    }
  } finally {
    await file.close();
  }
}
