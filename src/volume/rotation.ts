/**
 * The volume's part in a rotation of its DEK: new data goes under the new one at once, old data when it is rewritten. What
 * the superblock says meanwhile, and in which order, is the caller's part (docs/FORMAT.md, "Rotation").
 */
import { type Clock, sleep } from '../base/clock.js';
import { SealbdError } from '../base/errors.js';
import { BLOCK_BYTES } from '../base/limits.js';
import type { KeyHandle } from '../native/addon.js';
import type { SuiteId } from '../segment/format.js';
import type { Engine } from './engine.js';

export interface RewriteOptions {
  readonly clock: Clock;
  readonly signal: AbortSignal;
  /** Bytes of the device: those under the sealing DEK, and all that are mapped. */
  onProgress(doneBytes: number, totalBytes: number): void;
}

/** Segments that a client or a sync still uses are looked at again after this long. */
const BUSY_WAIT_MS = 20;

/**
 * From now on segments, map files and roots are under this DEK, which the superblock names as pending. Resolves when the
 * durable root and all of the tail are; then the superblock may call it active. May be called again after a failure.
 */
export async function switchKey(engine: Engine, id: number, key: KeyHandle, suite: SuiteId): Promise<void> {
  const { keys, spares, head, checkpointer } = engine;
  if (keys.sealing.id !== id) keys.switchTo(id, key, suite);
  await spares.purge(id);
  await head.moveTo(id);
  await checkpointer.run();
  if (!checkpointer.isUnder(id))
    throw new SealbdError('ENOSPC', 'no room to write the map anew under the new DEK');
}

/** Bytes of the device that are under the sealing DEK, and all that are mapped. */
export function rewritten({ table, keys }: Engine): { doneBytes: number; totalBytes: number } {
  let [done, total] = [0, 0];
  for (const segment of table.all()) {
    total += segment.live;
    if (segment.dekId === keys.sealing.id) done += segment.live;
  }
  return { doneBytes: done * BLOCK_BYTES, totalBytes: total * BLOCK_BYTES };
}

/** True where neither a segment nor the map on disk is under another DEK than the sealing one. */
export function isRewritten({ table, keys, checkpointer }: Engine): boolean {
  const { id } = keys.sealing;
  for (const segment of table.all()) if (segment.dekId !== id) return false;
  return checkpointer.isUnder(id);
}

/**
 * Rewrites everything that is under another DEK. When it resolves, nothing in the store depends on one. Rejects with
 * INTEGRITY where blocks can't be read any more: all others were rewritten, and those keep their DEK.
 */
export async function rewriteAll(engine: Engine, options: RewriteOptions): Promise<void> {
  const { compactor, checkpointer, spares, keys } = engine;
  const { clock, signal } = options;
  const report = (): void => {
    const { doneBytes, totalBytes } = rewritten(engine);
    options.onProgress(doneBytes, totalBytes);
  };
  report();
  while (!isRewritten(engine)) {
    const moved = await compactor.rewriteRound(signal, report);
    if (signal.aborted) throw new SealbdError('FAILED', 'the re-encryption was ended before it was done');
    await checkpointer.run();
    report();
    if (moved || isRewritten(engine)) continue;
    const blocks = compactor.stuck().reduce((sum, segment) => sum + segment.live, 0);
    if (blocks > 0) throw new SealbdError('INTEGRITY', stuckReason(blocks));
    await sleep(clock, BUSY_WAIT_MS);
  }
  await spares.purge(keys.sealing.id);
}

function stuckReason(blocks: number): string {
  return `${blocks} blocks can not be read and so not be re-encrypted; \`volume verify\` lists them: once they are overwritten or trimmed, re-encryption can be ended`;
}
