/**
 * Opens a volume with the size that counts, and ends what a rollback left of itself in the superblock (docs/FORMAT.md,
 * "Snapshots"): the root that rolls back brings map and size in one step.
 */
import { messageOf } from '../base/errors.js';
import { STOP_DEADLINE_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { VolumeHeader } from '../keys/volume-header.js';
import type { Store } from '../store/store.js';
import { rootSizeBytes } from '../volume/root-size.js';
import { identityOf, type KeyIdentity } from './dek-rotation.js';

interface OpenSizedOptions<Device> {
  readonly store: Store;
  readonly log: Logger;
  open(identity: KeyIdentity): Promise<Device>;
}

/** Rejects, and nothing is open, where the superblock could not be given the size. */
export async function openSized<Device extends { stop(deadlineMs: number): Promise<void> }>(
  header: VolumeHeader,
  { store, log, open }: OpenSizedOptions<Device>,
): Promise<Device> {
  const identity = identityOf(header);
  if (!header.superblock.sizeInRoot) return open(identity);
  const sizeBytes = await rootSizeBytes({ ...identity, store, log });
  // Both copies of the root say it when the volume is open; then the superblock may.
  const device = await open({ ...identity, sizeBytes });
  try {
    await header.update({ sizeBytes, sizeInRoot: false });
  } catch (error) {
    if (header.superblock.sizeInRoot) {
      await device.stop(STOP_DEADLINE_MS);
      throw error;
    }
    log.error({ reason: messageOf(error) }, 'a copy of the superblock still has the rollback under way');
  }
  return device;
}
