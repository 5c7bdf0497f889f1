/** Puts the parts of a volume together, and opens them on what the store holds. */
import type { Clock } from '../base/clock.js';
import { isSealbdError, SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { CipherPool } from '../cipher/cipher-pool.js';
import type { KeyHandle } from '../native/addon.js';
import { AppendBufferPool } from '../segment/append-buffer.js';
import { parseSegmentFileName, segmentFileName } from '../segment/format.js';
import type { Segment } from '../segment/segment.js';
import { SegmentHandles } from '../segment/segment-handles.js';
import { metadataMac } from '../segment/segment-mac.js';
import { SegmentReader } from '../segment/segment-reader.js';
import type { WriterContext } from '../segment/segment-writer.js';
import { isDiskFull } from '../store/disk-full.js';
import type { Store } from '../store/store.js';
import { BlockMap, UNMAPPED } from './block-map.js';
import { BounceBlocks } from './bounce-blocks.js';
import { type CheckpointRoot, readRoot } from './checkpoint-root.js';
import { Checkpointer } from './checkpointer.js';
import { Committer } from './committer.js';
import { Compactor } from './compactor.js';
import { DamageLog } from './damage-log.js';
import { DataPath } from './data-path.js';
import { Eraser } from './eraser.js';
import { fileSizes } from './file-sizes.js';
import { HeadLog } from './head-log.js';
import { ReadPath } from './read-path.js';
import { type RecoveryResult, replayTail } from './recovery.js';
import { loadRuns, parseMapFileName } from './run-files.js';
import { SegmentFactory } from './segment-factory.js';
import { SegmentTable } from './segment-table.js';
import { loadSnapshots, type Snapshot } from './snapshot.js';
import { SparePool } from './spare-pool.js';
import { TAIL_MAX_FACTOR, type VolumeTuning } from './tuning.js';
import type { VolumeKeys } from './volume-keys.js';

export interface EngineOptions {
  readonly name: string;
  readonly uuid: Uint8Array;
  readonly keys: VolumeKeys;
  readonly store: Store;
  readonly cipher: CipherPool;
  readonly clock: Clock;
  readonly log: Logger;
  readonly fresh: boolean;
  readonly tuning: VolumeTuning;
  sizeBytes(): number;
  requests(): number;
  onFailure(error: SealbdError): void;
}

export interface Engine {
  readonly store: Store;
  readonly deks: ReadonlyMap<number, KeyHandle>;
  readonly map: BlockMap;
  readonly table: SegmentTable;
  readonly reader: SegmentReader;
  readonly head: HeadLog;
  readonly bounce: BounceBlocks;
  readonly reads: ReadPath;
  readonly path: DataPath;
  readonly committer: Committer;
  readonly checkpointer: Checkpointer;
  readonly compactor: Compactor;
  readonly damage: DamageLog;
  readonly keys: VolumeKeys;
  readonly spares: SparePool;
  readonly eraser: Eraser;
  /**
   * Closes everything. `clean`: after a last commit and checkpoint; otherwise what is on disk stays as it is. With a snapshot, a
   * clean close leaves a volume that opens with its map.
   */
  close(clean: boolean, rollBackTo?: Snapshot): Promise<void>;
}

const MOVE_BUFFERS = 2;

const EMPTY_ROOT: CheckpointRoot = {
  dekId: 0,
  generation: 0,
  lastSequence: 0,
  nextSegmentId: 1,
  nextMapFileId: 1,
  headId: 0,
  headSlots: 0,
  preparedId: 0,
  sizeBytes: 0,
  mappedBlocks: 0,
  runs: [],
  snapshots: [],
};

/** Takes over `options.keys`: they are released with the engine. */
export async function openEngine(options: EngineOptions): Promise<Engine> {
  let loaded: Loaded;
  try {
    loaded = await load(options);
  } catch (error) {
    options.keys.release();
    throw error;
  }
  return assemble({ ...options, deks: options.keys.handles }, loaded);
}

type EngineContext = EngineOptions & { readonly deks: ReadonlyMap<number, KeyHandle> };

interface Loaded {
  readonly root: CheckpointRoot;
  readonly intact: boolean;
  readonly mapFiles: ReadonlySet<number>;
  readonly map: BlockMap;
  readonly table: SegmentTable;
  readonly recorded: Segment[];
  readonly snapshots: readonly Snapshot[];
  readonly recovery: RecoveryResult;
  /** Changes of the replayed tail, in order. */
  readonly changes: readonly [lba: number, blocks: number, slot: number][];
  readonly names: readonly string[];
}

/** Reads root, runs and tail: the state of the volume in memory. Changes nothing on disk. */
async function load(options: EngineOptions): Promise<Loaded> {
  const { store, uuid, keys, log, tuning } = options;
  const deks = keys.handles;
  const names = await store.list();
  const known = options.fresh
    ? { root: EMPTY_ROOT, intact: false, mapFiles: new Set<number>() }
    : await readRoot(store, uuid, keys, log);
  const map = new BlockMap(tuning.mapBytesMax);
  const table = new SegmentTable();
  const files = { store, uuid, deks };
  await loadRuns(files, known.root.runs, map, table);
  table.rebuildFreeIndexes();
  markLost(table, names, log);
  const recorded = [...table.all()];
  const snapshots = await loadSnapshots(files, known.root.snapshots, table, log);
  const changes: [number, number, number][] = [];
  const ids = names.map(parseSegmentFileName).filter((id) => id !== undefined);
  const recovery = await replayTail(
    {
      ...options,
      deks,
      root: known.root,
      table,
      onData(lba, blocks, slot) {
        map.setRun(lba, blocks, slot, table.dropLive);
        table.addLive(slot, blocks);
        changes.push([lba, blocks, slot]);
      },
      onUnmap(lba, blocks) {
        map.unmapRun(lba, blocks, table.dropLive);
        changes.push([lba, blocks, UNMAPPED]);
      },
    },
    ids,
  );
  return { ...known, map, table, recorded, snapshots, recovery, changes, names };
}

/** A segment whose file is gone reads as EIO, never as zeros. */
function markLost(table: SegmentTable, names: readonly string[], log: Logger): void {
  const present = new Set(names);
  for (const segment of table.all()) {
    if (present.has(segmentFileName(segment.id))) continue;
    segment.lost = `${segmentFileName(segment.id)} is missing`;
    log.error(
      { segment: segment.id, blocks: segment.live, held: segment.held },
      'a segment is missing: its blocks can not be read',
    );
  }
}

async function assemble(options: EngineContext, loaded: Loaded): Promise<Engine> {
  const { store, deks, keys, tuning, clock, log, cipher } = options;
  const { map, table, recovery } = loaded;
  const damage = new DamageLog(log);
  const handles = new SegmentHandles(store, deks, tuning.handlesMax);
  const spares = new SparePool({
    store,
    ...fileSizes(tuning),
    sealing: () => keys.sealing.id,
  });
  const eraser = new Eraser({ store, clock, log, release: (name) => spares.put(name, 'recycle') });
  const { nextSegmentId } = recovery;
  const { segmentSlots } = tuning;
  const factory = new SegmentFactory({ ...options, table, handles, spares, segmentSlots, nextSegmentId });
  const reader = new SegmentReader(handles, cipher, {
    poolReadBytes: tuning.poolReadBytes,
    onDamage: (segment, position, lba, reason) => damage.note(segment, position, lba, reason),
  });
  const onFailure = (error: unknown): void => head.fail(error);
  const appendBuffers = new AppendBufferPool(tuning.appendBuffers, clock);
  const writer = writerContext(options, appendBuffers, tuning.poolSealBytes, onFailure);
  // Compaction has buffers of its own, so that it can't starve clients; it seals inline, one short run at a time.
  const moveBuffers = new AppendBufferPool(MOVE_BUFFERS, clock);
  const mover = writerContext(options, moveBuffers, Number.POSITIVE_INFINITY, onFailure);
  const onGrown = (segment: Segment): void => {
    table.changed.add(segment);
    checkpointer.grown();
  };
  const head = new HeadLog({
    factory,
    writer,
    clock,
    segmentSlots,
    bufferAgeMs: tuning.bufferAgeMs,
    tailSlotsMax: tuning.checkpointSlots * TAIL_MAX_FACTOR,
    lastSequence: recovery.lastSequence,
    onMapped(lba, blocks, slot) {
      map.setRun(lba, blocks, slot, table.dropLive);
      table.addLive(slot, blocks);
      checkpointer.note(lba, blocks, slot);
    },
    onGrown,
    reclaim: () => reclaim(checkpointer, compactor),
    whenTailShrinks: () => checkpointer.whenTailShrinks(),
    onFailure(error) {
      checkpointer.stop();
      moveBuffers.wakeAll();
      options.onFailure(error);
    },
  });
  const committer = new Committer(() => head.commit());
  const compactor = new Compactor({
    ...options,
    map,
    table,
    handles,
    factory,
    writer: mover,
    segmentSlots,
    garbageRatio: tuning.garbageRatio,
    isBusy: (segment) => head.uses(segment),
    foregroundRequests: () => options.requests(),
    onMoved: (lba, _from, to) => checkpointer.note(lba, 1, to),
    onGrown,
    failed: () => head.failed,
    onFailure,
  });
  const checkpointer: Checkpointer = new Checkpointer({
    ...options,
    map,
    table,
    handles,
    factory,
    spares,
    eraser,
    head,
    committer,
    compactor,
    root: loaded.root,
    mapFiles: loaded.mapFiles,
    recorded: loaded.recorded,
    snapshots: loaded.snapshots,
    checkpointSlots: tuning.checkpointSlots,
    intervalMs: tuning.checkpointIntervalMs,
    onFailure,
  });
  checkpointer.afterCheckpoint = () => compactor.kick(() => checkpointer.run());
  const bounce = new BounceBlocks();
  const reads = new ReadPath({ map, table, reader, bounce });
  const path = new DataPath({
    map,
    table,
    reads,
    bounce,
    head,
    onUnmapped: (lba, blocks) => checkpointer.note(lba, blocks, UNMAPPED),
  });

  handles.isBusy = (segment) => head.uses(segment) || compactor.uses(segment);
  try {
    await settle(options, loaded, { spares, eraser, checkpointer, head });
  } catch (error) {
    await release();
    throw error;
  }
  return {
    store,
    deks,
    map,
    table,
    reader,
    head,
    bounce,
    reads,
    path,
    committer,
    checkpointer,
    compactor,
    damage,
    keys,
    spares,
    eraser,
    close,
  };

  async function close(clean: boolean, rollBackTo?: Snapshot): Promise<void> {
    try {
      await eraser.stop();
      await compactor.stop();
      if (clean) await committer.flush();
      checkpointer.stop();
      const unused = await head.close();
      if (unused !== undefined) {
        await handles.drop(unused.segment);
        table.remove(unused.segment);
        await spares.put(
          segmentFileName(unused.segment.id),
          keys.recycles(unused.segment) ? 'recycle' : 'remove',
        );
      }
      // What runs in the background must be over before somebody else opens the volume.
      await checkpointer.idle();
      if (clean) await checkpointer.run();
      if (clean && rollBackTo !== undefined) await checkpointer.rollBack(rollBackTo);
    } finally {
      await release();
    }
  }

  /** Lets go of timers, files, keys and memory, whatever state things are in. */
  async function release(): Promise<void> {
    head.abandon();
    await eraser.stop();
    await checkpointer.close();
    await handles.dropAll();
    writer.buffers.freeIdle();
    mover.buffers.freeIdle();
    bounce.free();
    keys.release();
  }
}

function writerContext(
  options: EngineContext,
  buffers: AppendBufferPool,
  poolSealBytes: number,
  onFailure: (error: unknown) => void,
): WriterContext {
  const { cipher, clock, log, deks } = options;
  return { cipher, buffers, clock, log, poolSealBytes, mac: metadataMac(deks), onFailure };
}

/** Makes what recovery found durable, removes what nothing needs, and publishes the checkpoint to serve from. */
async function settle(
  options: EngineOptions,
  loaded: Loaded,
  { spares, eraser, checkpointer, head }: Pick<Engine, 'spares' | 'eraser' | 'checkpointer' | 'head'>,
): Promise<void> {
  const { store, keys } = options;
  const { recovery, root, mapFiles, changes, names, table } = loaded;
  for (const segment of recovery.replayed) table.changed.add(segment);
  await spares.adopt(names);
  await spares.purge();
  for (const name of names) {
    const mapFile = parseMapFileName(name);
    if (name.endsWith('.tmp')) await store.remove(name);
    else if (mapFile !== undefined && !mapFiles.has(mapFile)) await spares.putMap(name);
  }
  // Only now: many changes start a checkpoint, which would find the names of what a crash left taken.
  for (const change of changes) checkpointer.note(...change);
  // An open head or unused segments say that nobody closed this volume.
  const unclean = root.headId !== 0 || recovery.unused.length > 0 || changes.length > 0;
  // A rotation that was begun: the root, and what the tail was, go under the new DEK.
  const rotated = !checkpointer.isRootUnder(keys.sealing.id);
  try {
    if (options.fresh || !loaded.intact || unclean || rotated) await checkpointer.run();
  } catch (error) {
    if (options.fresh || !isDiskFull(error)) throw error;
    // What was found is durable, and can be read; but nothing may be written behind a tail that no root covers.
    head.fail(error);
    return;
  }
  // Only now: the root before this one may have counted on them. Last first, so that what is left is a whole chain.
  for (const id of recovery.unused.sort((a, b) => b - a)) {
    if (keys.plain) eraser.add(segmentFileName(id));
    else await store.remove(segmentFileName(id));
  }
  await reserveSpace(options, spares);
}

/** A new volume does not start without its reserve; one that exists goes on, and says so. */
async function reserveSpace({ fresh, log }: EngineOptions, spares: SparePool): Promise<void> {
  if (await spares.fillReserve()) return;
  const problem = `no room for the ${spares.reserveBytes} bytes that keep a volume working on a full disk`;
  if (fresh) throw new SealbdError('ENOSPC', problem);
  log.warn({ reserveBytes: spares.reserveBytes }, problem);
}

/** The disk is full: let dead segments go, compact, and let go again. True where something came free. */
async function reclaim(checkpointer: Checkpointer, compactor: Compactor): Promise<boolean> {
  const before = checkpointer.retired;
  if (checkpointer.canRetire) await checkpointer.run();
  if (checkpointer.retired > before) return true;
  let moved = false;
  try {
    moved = await compactor.round(true);
  } catch (error) {
    // Not even room to move something; but what an earlier round moved may only need its checkpoint.
    if (!isSealbdError(error, 'ENOSPC')) throw error;
  }
  if (!moved && !checkpointer.canRetire) return false;
  await checkpointer.run();
  return checkpointer.retired > before;
}
