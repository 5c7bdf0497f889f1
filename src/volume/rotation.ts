/**
 * The volume's part in a rotation of its DEK: new data goes under the new one at once, old data when it is rewritten. What
 * the superblock says meanwhile, and in which order, is the caller's part (docs/FORMAT.md, "Rotation").
 */
import { type Clock, sleep } from '../base/clock.js';
import { isSealbdError, SealbdError } from '../base/errors.js';
import { BLOCK_BYTES, SEGMENT_SLOTS } from '../base/limits.js';
import type { KeyHandle } from '../native/addon.js';
import type { SuiteId } from '../segment/format.js';
import type { Segment } from '../segment/segment.js';
import type { RewritePace } from './compactor.js';
import type { Engine } from './engine.js';
import { Relocation } from './relocation.js';
import type { Snapshot } from './snapshot.js';
import type { Snapshots } from './snapshots.js';

export interface RewriteOptions {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Bytes of the device: those under the sealing DEK, and all that are mapped. */
  onProgress(doneBytes: number, totalBytes: number): void;
}

/** Segments that a client or a sync still uses, and files that are being overwritten, are looked at again after this long. */
const BUSY_WAIT_MS = 20;
const BUSY_WAIT_MAX_MS = 1000;
/** About 7 seconds without anything to do, or room to do it in. */
const IDLE_ROUNDS_MAX = 12;
/** Counting walks over all segments: it takes at most this part of the time. */
const REPORT_SHARE = 20;
const REPORT_MS_MIN = 250;
/** Between two checkpoints, each of which walks over all segments too: a part of them, and a large segment's worth of blocks. */
const BATCHES_A_VOLUME = 256;
/** Segments that snapshots hold: it takes 144 KiB of memory for each to remember where their slots went. */
const HELD_A_BATCH_MAX = 1024;

const NO_ROOM_FOR_MAP = 'no room to write the map anew under the new DEK';

/**
 * From now on segments, map files and roots are under this DEK, which the superblock names as pending. Resolves when the
 * durable root and all of the tail are; then the superblock may call it active. May be called again after a failure.
 */
export async function switchKey(engine: Engine, id: number, key: KeyHandle, suite: SuiteId): Promise<void> {
  const { keys, spares, head, checkpointer } = engine;
  if (keys.sealing.id !== id) keys.switchTo(id, key, suite);
  await spares.purge();
  await head.moveTo(id);
  await checkpointer.run();
  if (isSwitched(engine)) return;
  const { stuck } = checkpointer.snapshots;
  if (stuck.length > 0) throw new SealbdError('INTEGRITY', snapshotReason(stuck));
  throw new SealbdError('ENOSPC', NO_ROOM_FOR_MAP);
}

/**
 * The durable root is under the sealing DEK. Older map files may be under the one before where the disk had no room for
 * all of the map; but none under the public key, which anybody can authenticate.
 */
export function isSwitched({ keys, checkpointer }: Engine): boolean {
  const { id } = keys.sealing;
  if (!checkpointer.isRootUnder(id)) return false;
  return !keys.plain || checkpointer.deksOnDisk.size === 1;
}

/** Blocks of it that the map or snapshots name, or a few more where several of them name the same. */
function named({ live, held, slots }: Segment): number {
  return Math.min(slots, live + held);
}

/** Bytes that are under the sealing DEK, and all that the device and its snapshots have. */
export function rewritten({ table, keys }: Engine): { doneBytes: number; totalBytes: number } {
  let [done, total] = [0, 0];
  for (const segment of table.all()) {
    total += named(segment);
    if (segment.dekId === keys.sealing.id) done += named(segment);
  }
  return { doneBytes: done * BLOCK_BYTES, totalBytes: total * BLOCK_BYTES };
}

/** DEKs that a segment, the root, a map file or what is pinned is under, or plaintext that is not erased yet (0). */
export function deksInUse({ table, checkpointer, eraser }: Engine): Set<number> {
  const ids = new Set(checkpointer.deksOnDisk);
  for (const { dekId } of checkpointer.snapshots.runsPinned()) ids.add(dekId);
  for (const segment of table.all()) ids.add(segment.dekId);
  if (eraser.pending > 0) ids.add(0);
  return ids;
}

/** True where nothing is under another DEK than the sealing one. */
export function isRewritten(engine: Engine): boolean {
  const ids = deksInUse(engine);
  return ids.size === 1 && ids.has(engine.keys.sealing.id);
}

/**
 * Rewrites everything that is under another DEK, of snapshots too, and waits for what is pinned. When it resolves, nothing in
 * the store depends on one. Rejects with INTEGRITY where blocks can't be read any more: all others were rewritten, and those
 * keep their DEK.
 */
export async function rewriteAll(engine: Engine, options: RewriteOptions): Promise<void> {
  const { compactor, checkpointer, spares, eraser, keys, table } = engine;
  const { clock, signal } = options;
  const { snapshots } = checkpointer;
  const report = reporter(engine, options);
  report(true);
  const foreign = (): Segment[] => [...table.all()].filter((segment) => segment.dekId !== keys.sealing.id);
  let queue = foreign();
  let idle = 0;
  while (queue.length > 0 || !isRewritten(engine)) {
    const batch = takeBatch(queue, table.count);
    // Its last file too, where nothing else has made room: each segment that is moved gives one back.
    const claim = idle === 0 ? 'all-but-one' : 'all';
    const pace = { signal, onChunk: () => report(false), claim } as const;
    const pass = await rewriteBatch(engine, batch, queue.length > 0, pace);
    if (signal.aborted) throw new SealbdError('FAILED', 'the re-encryption was ended before it was done');
    report(false);
    if (queue.length > 0 && pass.noRoom === undefined) continue;
    queue = foreign();
    if (pass.moved) idle = 0;
    if (pass.moved || isRewritten(engine)) continue;
    const isStuck = queue.every((segment) => compactor.isStuck(segment) || snapshots.keepsStuck(segment));
    if (isStuck && (queue.length > 0 || snapshots.isStuckForeign))
      throw new SealbdError('INTEGRITY', stuckReason(queue, snapshots));
    if (eraser.failure !== undefined)
      throw new SealbdError('EIO', `plaintext is left that can not be overwritten: ${eraser.failure}`);
    // A backup, say, ends some time.
    const isWaiting = snapshots.pinsOthers(keys.sealing.id);
    if (idle === IDLE_ROUNDS_MAX && !isWaiting)
      throw pass.noRoom ?? new SealbdError('ENOSPC', NO_ROOM_FOR_MAP);
    await sleep(clock, Math.min(BUSY_WAIT_MAX_MS, BUSY_WAIT_MS * 2 ** idle));
    if (idle < IDLE_ROUNDS_MAX) idle++;
  }
  await spares.purge();
  report(true);
}

interface Pass {
  readonly moved: boolean;
  /** Why not all of it could be moved, or counted. */
  readonly noRoom: unknown;
}

/** Moves what these segments hold, and has a checkpoint say so; where that was nothing it may wait for more to come. */
async function rewriteBatch(
  engine: Engine,
  batch: readonly Segment[],
  moreToCome: boolean,
  pace: RewritePace,
): Promise<Pass> {
  const { compactor, checkpointer, table } = engine;
  const { snapshots } = checkpointer;
  const relocation = await Relocation.of(batch, table, snapshots);
  const { writtenAnew } = snapshots;
  try {
    let noRoom: unknown;
    let moved = await compactor.rewrite(batch, relocation, pace).catch((error: unknown) => {
      if (!isSealbdError(error, 'ENOSPC')) throw error;
      // The switch may have used the reserve: what the checkpoint lets go of brings it back.
      noRoom = error;
      return false;
    });
    // What clients overwrote since needs no checkpoint.
    if (pace.signal?.aborted || (!moved && noRoom === undefined && moreToCome)) return { moved, noRoom };
    await checkpointer.relocate(relocation);
    if (relocation.moves > 0 && !relocation.published) {
      noRoom ??= new SealbdError('ENOSPC', 'no room to write the map of a snapshot anew');
      moved = false;
    }
    // Their map files go over to the new DEK little by little.
    return { moved: moved || snapshots.writtenAnew > writtenAnew, noRoom };
  } finally {
    relocation.release();
  }
}

function takeBatch(queue: Segment[], segments: number): Segment[] {
  const count = Math.ceil(segments / BATCHES_A_VOLUME);
  let [taken, blocks, held] = [0, 0, 0];
  while (taken < queue.length && held < HELD_A_BATCH_MAX && (taken < count || blocks < SEGMENT_SLOTS)) {
    blocks += named(queue[taken]);
    if (queue[taken].held > 0) held++;
    taken++;
  }
  return queue.splice(0, taken);
}

/** Reports where it is time to, or always. */
function reporter(engine: Engine, { clock, onProgress }: RewriteOptions): (always: boolean) => void {
  let dueAt = 0;
  return (always) => {
    const started = clock.monotonic();
    if (!always && started < dueAt) return;
    const { doneBytes, totalBytes } = rewritten(engine);
    onProgress(doneBytes, totalBytes);
    const now = clock.monotonic();
    dueAt = now + Math.max(REPORT_MS_MIN, (now - started) * REPORT_SHARE);
  };
}

function stuckReason(segments: readonly Segment[], snapshots: Snapshots): string {
  if (segments.length === 0 || segments.some((segment) => snapshots.keepsStuck(segment)))
    return snapshotReason(snapshots.stuck);
  const blocks = segments.reduce((sum, segment) => sum + named(segment), 0);
  return `${blocks} blocks can not be read and so not be re-encrypted; "sealbd volume verify" lists them: once they are overwritten or trimmed, and snapshots that have them deleted, the rest of the re-encryption can be done`;
}

function snapshotReason(snapshots: readonly Snapshot[]): string {
  const names = snapshots.map(({ name }) => `"${name}"`).join(', ');
  return `what damaged snapshots hold can not be re-encrypted: ${names}; once they are deleted, the rest can be done`;
}
