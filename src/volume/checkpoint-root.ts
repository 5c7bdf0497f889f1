/**
 * The checkpoint root (docs/FORMAT.md): which map files make the map, and where the log continues. Pure codec, and the
 * two copies in the store.
 */
import { ByteReader, ByteWriter, bytesEqual } from '../base/bytes.js';
import { messageOf, SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { addon, type KeyHandle } from '../native/addon.js';
import { MAC_BYTES, SALT_BYTES, UUID_BYTES } from '../segment/format.js';
import type { Store } from '../store/store.js';

export const CHECKPOINT_NAMES = ['checkpoint', 'checkpoint.bak'] as const;

const MAGIC = 'SBDCKP1\n';
const VERSION = 1;
const FIXED_BYTES = 104;
const RUN_BYTES = 72;
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
}

export function encodeRoot(uuid: Uint8Array, root: CheckpointRoot, dek: KeyHandle): Uint8Array {
  const bytes = new Uint8Array(FIXED_BYTES + RUN_BYTES * root.runs.length + MAC_BYTES);
  const writer = new ByteWriter(bytes)
    .text(MAGIC)
    .u16(VERSION)
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
  for (const run of root.runs) {
    writer.u64(run.fileId).u64(run.bytes).u64(run.mapEntries).u64(run.segmentEntries);
    writer.u32(run.dekId).u32(0).bytes(run.salt);
  }
  const mac = addon.keyMac(dek, LABEL, uuid, bytes.subarray(0, bytes.length - MAC_BYTES));
  writer.bytes(mac);
  return bytes;
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
  if (version !== VERSION) throw reader.error(`version ${version} is unknown`);
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
  const covered = bytes.subarray(0, reader.offset);
  const mac = reader.bytes(MAC_BYTES);
  reader.end();
  const key = keys.trusts(dekId) ? keys.handles.get(dekId) : undefined;
  if (key === undefined) throw reader.error(`is under DEK ${dekId}, not under the active one`);
  if (!addon.keyMacVerify(key, LABEL, uuid, covered, mac)) throw reader.error('does not authenticate');
  return { ...fixed, ...sizes, runs };
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
      for (const run of root.runs) mapFiles.add(run.fileId);
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
