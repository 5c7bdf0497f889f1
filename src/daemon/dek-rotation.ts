/**
 * The order of steps in a rotation of a volume's DEK, between superblock and engine (docs/FORMAT.md, "Rotation"): nothing
 * is sealed under a DEK that the superblock does not name, and none leaves the superblock that something still names.
 */
import type { AddDekOptions, VolumeHeader } from '../keys/volume-header.js';
import type { EngineOpenOptions, EngineVolume } from './engine.js';

export type KeyIdentity = Pick<
  EngineOpenOptions,
  'uuid' | 'sizeBytes' | 'suite' | 'deks' | 'activeDek' | 'pendingDek' | 'sealPending' | 'plain'
>;

/** What the engine must know of the superblock to open a volume. */
export function identityOf({ superblock, deks, pending, whole }: VolumeHeader): KeyIdentity {
  const { uuid, sizeBytes, suite, activeDek, plain } = superblock;
  return { uuid, sizeBytes, suite, deks, activeDek, pendingDek: pending?.id, sealPending: whole, plain };
}

/** A new DEK for everything written from now on. One that is pending since an attempt that failed is taken instead. */
export async function rotate(
  header: VolumeHeader,
  device: EngineVolume,
  options: AddDekOptions,
): Promise<void> {
  if (header.pending !== undefined) return goOn(header, device, options.rewrite);
  await header.addPending(options);
  await switchToPending(header, device);
}

/** Goes on with a rotation that was begun. */
export async function goOn(header: VolumeHeader, device: EngineVolume, rewrite: boolean): Promise<void> {
  // Both copies of the superblock have its wrap before anything is sealed under it.
  await header.confirmPending(rewrite);
  await switchToPending(header, device);
}

async function switchToPending(header: VolumeHeader, device: EngineVolume): Promise<void> {
  const { id } = header.pending!;
  await device.switchKey(id, header.deks.get(id)!, header.superblock.suite);
  await activate(header, device);
}

/** Opening a volume did the engine's part of a rotation that was begun; this is the rest. */
export async function finishSwitch(header: VolumeHeader, device: EngineVolume): Promise<void> {
  // Without a root under the new DEK the old one stays in charge: the next opening, or the next rotation, tries again.
  const isSwitched = header.whole && device.state === 'serving' && device.isSwitched;
  if (header.pending !== undefined && isSwitched) await activate(header, device);
}

async function activate(header: VolumeHeader, device: EngineVolume): Promise<void> {
  await header.activatePending();
  device.settleKey();
}

/** Destroys the old DEKs that nothing is under any more. Returns their ids. */
export async function dropOld(header: VolumeHeader, device: EngineVolume): Promise<number[]> {
  if (header.pending !== undefined) return [];
  const inUse = device.deksInUse();
  try {
    return await header.dropRetired(inUse);
  } finally {
    // Even where copy 2 could not be written: what the superblock in force does not name is wiped.
    const { deks, plain } = header.superblock;
    device.keepKeys([...deks.map((dek) => dek.id), ...(plain ? [0] : [])]);
  }
}
