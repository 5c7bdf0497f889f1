/**
 * The checkpoint root (docs/FORMAT.md): which map files make the map, where the log continues, and which snapshots there
 * are. Pure codec, and the two copies in the store.
 */
import { ByteReader, ByteWriter, bytesEqual } from '../base/bytes.js';
import { messageOf, SealbdError } from '../base/errors.js';
import { NAME_PATTERN, SNAPSHOT_RUNS_MAX, SNAPSHOTS_MAX } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { addon, type KeyHandle } from '../native/addon.js';
import { MAC_BYTES, SALT_BYTES, UUID_BYTES } from '../segment/format.js';
import type { Store } from '../store/store.js';

export const CHECKPOINT_NAMES = ['checkpoint', 'checkpoint.bak'] as const;

const MAGIC = 'SBDCKP1\n';
const VERSION = 1;
/** Of a root that names snapshots: who knows version 1 only must not take it for one that names none. */
const VERSION_WITH_SNAPSHOTS = 2;
const FIXED_BYTES = 104;
const RUN_BYTES = 72;
const COUNT_BYTES = 4;
const SNAPSHOT_FIXED_BYTES = 48;
/** Runs that a root may name. */
export const RUNS_MAX = 1024;
const LABEL = 'sealbd/v1/checkpoint';

export interface RunRef {
  readonly fileId: number;
  readonly bytes: number;
  readonly mapEntries: number;
  readonly segmentEntries: number;
  readonly dekId: number;
  readonly salt: Uint8Array;
}

/** A snapshot as the root names it. */
export interface SnapshotEntry {
  readonly name: string;
  readonly createdAtMs: number;
  readonly sizeBytes: number;
  readonly lastSequence: number;
  readonly mappedBlocks: number;
  /** All segments that it names have lower ids. */
  readonly segmentIdEnd: number;
  /** A map file of segment entries alone, whose slots are the blocks that it holds in each. */
  readonly table: RunRef;
  /** Oldest first. */
  readonly runs: readonly RunRef[];
}

export interface CheckpointRoot {
  readonly dekId: number;
  readonly generation: number;
  readonly lastSequence: number;
  readonly nextSegmentId: number;
  readonly nextMapFileId: number;
  /** The head segment that was open at the cut (0: none), and how many of its slots the map covers. */
  readonly headId: number;
  readonly headSlots: number;
  /** The segment that was prepared to follow the head (0: none). */
  readonly preparedId: number;
  readonly sizeBytes: number;
  readonly mappedBlocks: number;
  /** Oldest first. */
  readonly runs: readonly RunRef[];
  /** Oldest first. */
  readonly snapshots: readonly SnapshotEntry[];
}

function snapshotsBytes(snapshots: readonly SnapshotEntry[]): number {
  if (snapshots.length === 0) return 0;
  return snapshots.reduce(
    (sum, { name, runs }) => sum + SNAPSHOT_FIXED_BYTES + RUN_BYTES * (1 + runs.length) + name.length,
    COUNT_BYTES,
  );
}

export function encodeRoot(uuid: Uint8Array, root: CheckpointRoot, dek: KeyHandle): Uint8Array {
  const { snapshots } = root;
  const bytes = new Uint8Array(
    FIXED_BYTES + RUN_BYTES * root.runs.length + snapshotsBytes(snapshots) + MAC_BYTES,
  );
  const writer = new ByteWriter(bytes)
    .text(MAGIC)
    .u16(snapshots.length === 0 ? VERSION : VERSION_WITH_SNAPSHOTS)
    .u16(0)
    .u32(root.dekId)
    .bytes(uuid)
    .u64(root.generation)
    .u64(root.lastSequence)
    .u64(root.nextSegmentId)
    .u64(root.nextMapFileId)
    .u64(root.headId)
    .u32(root.headSlots)
    .u32(root.runs.length)
    .u64(root.sizeBytes)
    .u64(root.mappedBlocks)
    .u64(root.preparedId);
  for (const run of root.runs) encodeRun(writer, run);
  if (snapshots.length > 0) writer.u32(snapshots.length);
  for (const snapshot of snapshots) encodeSnapshot(writer, snapshot);
  const mac = addon.keyMac(dek, LABEL, uuid, bytes.subarray(0, bytes.length - MAC_BYTES));
  writer.bytes(mac);
  return bytes;
}

function encodeRun(writer: ByteWriter, run: RunRef): void {
  writer.u64(run.fileId).u64(run.bytes).u64(run.mapEntries).u64(run.segmentEntries);
  writer.u32(run.dekId).u32(0).bytes(run.salt);
}

function encodeSnapshot(writer: ByteWriter, snapshot: SnapshotEntry): void {
  writer
    .u64(snapshot.createdAtMs)
    .u64(snapshot.sizeBytes)
    .u64(snapshot.lastSequence)
    .u64(snapshot.mappedBlocks)
    .u64(snapshot.segmentIdEnd)
    .u16(snapshot.name.length)
    .u16(snapshot.runs.length)
    .u32(0);
  for (const run of [snapshot.table, ...snapshot.runs]) encodeRun(writer, run);
  writer.text(snapshot.name);
}

/** Which DEKs make a root, with their handles. */
export interface RootKeys {
  readonly handles: ReadonlyMap<number, KeyHandle>;
  trusts(id: number): boolean;
}

/**
 * Throws INTEGRITY unless the root is of this volume and authenticates under a DEK that is trusted with it: whoever knows
 * a retired one must not be able to make a root.
 */
export function decodeRoot(bytes: Uint8Array, uuid: Uint8Array, keys: RootKeys): CheckpointRoot {
  const reader = new ByteReader(bytes, 'checkpoint');
  reader.expect(MAGIC);
  const version = reader.u16();
  if (version !== VERSION && version !== VERSION_WITH_SNAPSHOTS)
    throw reader.error(`version ${version} is unknown`);
  reader.zeros(2);
  const dekId = reader.u32();
  if (!bytesEqual(reader.bytes(UUID_BYTES), uuid)) throw reader.error('belongs to another volume');
  const fixed = {
    dekId,
    generation: reader.u64(),
    lastSequence: reader.u64(),
    nextSegmentId: reader.u64(),
    nextMapFileId: reader.u64(),
    headId: reader.u64(),
    headSlots: reader.u32(),
  };
  const count = reader.u32();
  if (count > RUNS_MAX) throw reader.error(`${count} runs`);
  const sizes = { sizeBytes: reader.u64(), mappedBlocks: reader.u64(), preparedId: reader.u64() };
  const runs: RunRef[] = [];
  for (let i = 0; i < count; i++) runs.push(decodeRun(reader));
  const snapshots = version === VERSION ? [] : decodeSnapshots(reader);
  const covered = bytes.subarray(0, reader.offset);
  const mac = reader.bytes(MAC_BYTES);
  reader.end();
  const key = keys.trusts(dekId) ? keys.handles.get(dekId) : undefined;
  if (key === undefined) throw reader.error(`is under DEK ${dekId}, not under the active one`);
  if (!addon.keyMacVerify(key, LABEL, uuid, covered, mac)) throw reader.error('does not authenticate');
  return { ...fixed, ...sizes, runs, snapshots };
}

function decodeRun(reader: ByteReader): RunRef {
  const run = {
    fileId: reader.u64(),
    bytes: reader.u64(),
    mapEntries: reader.u64(),
    segmentEntries: reader.u64(),
    dekId: reader.u32(),
  };
  reader.zeros(4);
  return { ...run, salt: reader.bytes(SALT_BYTES).slice() };
}

function decodeSnapshots(reader: ByteReader): SnapshotEntry[] {
  const count = reader.u32();
  if (count < 1 || count > SNAPSHOTS_MAX) throw reader.error(`${count} snapshots`);
  const snapshots: SnapshotEntry[] = [];
  for (let i = 0; i < count; i++) snapshots.push(decodeSnapshot(reader));
  if (new Set(snapshots.map(({ name }) => name)).size < count)
    throw reader.error('two snapshots have one name');
  return snapshots;
}

function decodeSnapshot(reader: ByteReader): SnapshotEntry {
  const fixed = {
    createdAtMs: reader.u64(),
    sizeBytes: reader.u64(),
    lastSequence: reader.u64(),
    mappedBlocks: reader.u64(),
    segmentIdEnd: reader.u64(),
  };
  const nameBytes = reader.u16();
  const count = reader.u16();
  if (count > SNAPSHOT_RUNS_MAX) throw reader.error(`${count} runs of a snapshot`);
  reader.zeros(4);
  const table = decodeRun(reader);
  const runs: RunRef[] = [];
  for (let i = 0; i < count; i++) runs.push(decodeRun(reader));
  const name = reader.text(nameBytes);
  if (!NAME_PATTERN.test(name)) throw reader.error('the name of a snapshot is none');
  return { name, ...fixed, table, runs };
}

/** Map files that a root names. */
export function* runsNamed(root: Pick<CheckpointRoot, 'runs' | 'snapshots'>): Generator<RunRef> {
  yield* root.runs;
  for (const { table, runs } of root.snapshots) yield* [table, ...runs];
}

/** Publishes a root: both copies, one after the other. When this returns, what no root names any more may go. */
export async function writeRoot(store: Store, bytes: Uint8Array): Promise<void> {
  for (const name of CHECKPOINT_NAMES) await store.replaceSmall(name, bytes);
}

export interface RootCopies {
  /** The copy with the highest generation that authenticates. */
  readonly root: CheckpointRoot;
  /** Both copies say the same. */
  readonly intact: boolean;
  /** Map files that some copy names. */
  readonly mapFiles: ReadonlySet<number>;
}

/** Reads both copies of the root. */
export async function readRoot(
  store: Store,
  uuid: Uint8Array,
  keys: RootKeys,
  log: Logger,
): Promise<RootCopies> {
  const mapFiles = new Set<number>();
  let best: CheckpointRoot | undefined;
  const contents: (Buffer | undefined)[] = [];
  const problems: string[] = [];
  for (const name of CHECKPOINT_NAMES) {
    try {
      const bytes = await store.readSmall(name);
      contents.push(bytes);
      if (bytes === undefined) throw new SealbdError('INTEGRITY', 'checkpoint: missing');
      const root = decodeRoot(bytes, uuid, keys);
      for (const run of runsNamed(root)) mapFiles.add(run.fileId);
      if (best === undefined || root.generation > best.generation) best = root;
    } catch (error) {
      problems.push(`${name}: ${messageOf(error)}`);
      log.warn({ copy: name, reason: messageOf(error) }, 'a copy of the checkpoint root is unusable');
    }
  }
  if (best === undefined) throw new SealbdError('INTEGRITY', problems.join('; '));
  const [first, second] = contents;
  const intact = first !== undefined && second !== undefined && bytesEqual(first, second);
  return { root: best, intact, mapFiles };
}
