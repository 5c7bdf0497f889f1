/** What the volumes of this directory depend on, and how far that can be relied on. */
import { type Clock, within } from '../base/clock.js';
import { messageOf, SealbdError } from '../base/errors.js';
import { LOOK_WAIT_MS } from '../base/limits.js';
import { formatDuration } from '../base/units.js';
import { readCandidate, readHeaderCopies } from '../keys/header-copies.js';
import { type KnownVolume, namesSameKeys } from '../keys/key-usage.js';
import type { ManagedVolume } from './managed-volume.js';
import type { VolumeManager } from './volume-manager.js';

export interface KeyInventory {
  readonly volumes: readonly KnownVolume[];
  /** Why a key may be needed though no volume names it, one sentence each. */
  readonly doubts: readonly string[];
}

/** Each volume is looked at between operations on it; what begins meanwhile, or makes a new volume, is a doubt. */
export async function takeInventory(volumes: VolumeManager, clock: Clock): Promise<KeyInventory> {
  const { found, underWay } = await volumes.keysUnderWay.seenDuring(() => {
    return Promise.all(volumes.list().map((volume) => lookAt(volume, volumes, clock)));
  });
  const known = found.flatMap((volume) => volume ?? []);
  const doubts = underWay.map(({ volume, to }) => {
    return `volume "${volume}" was on its way to ${to} while this was looked up: ask again when that is over`;
  });
  return { volumes: known, doubts: [...known.flatMap((volume) => volume.doubts), ...doubts] };
}

/** What is remembered of it has to do for a volume on which another operation does not end. */
async function lookAt(
  { name, superblock, proven }: ManagedVolume,
  volumes: VolumeManager,
  clock: Clock,
): Promise<KnownVolume | undefined> {
  const busy = new SealbdError(
    'FAILED',
    `another operation on it did not end in ${formatDuration(LOOK_WAIT_MS)}`,
  );
  try {
    return await within(clock, LOOK_WAIT_MS, volumes.lookAt(name, knowledgeOf), () => busy);
  } catch (error) {
    if (error !== busy) throw error;
    const superblocks = [superblock, proven].filter((known) => known !== undefined);
    return { volume: name, superblocks, segmentsByDek: undefined, doubts: [doubtOf(name, busy.message)] };
  }
}

function doubtOf(volume: string, why: string): string {
  return `volume "${volume}" may need a key that is not listed: ${why}`;
}

/**
 * An open volume is proven, and its copies on the disk may lag behind. Of one that is not open the files are all there is:
 * who can write them can leave a key out, so they count as far as they are what was proven in this run.
 */
async function knowledgeOf({ device, superblock, proven, name, store }: ManagedVolume): Promise<KnownVolume> {
  const { copies, problems } = await readHeaderCopies(store);
  const doubts: string[] = [];
  const doubt = (why: string): number => doubts.push(doubtOf(name, why));
  const onDisk = copies.map((copy) => copy.decoded.superblock);
  try {
    const candidate = await readCandidate(store);
    if (candidate !== undefined) onDisk.push(candidate.superblock);
  } catch (error) {
    doubt(messageOf(error));
  }
  if (device !== undefined && superblock !== undefined)
    return {
      volume: name,
      superblocks: [superblock, ...onDisk],
      segmentsByDek: device.segmentsByDek(),
      doubts,
    };
  for (const problem of problems) doubt(problem);
  if (proven === undefined) doubt('it is not open, and what its superblock says is not proven');
  else if (onDisk.some((present) => !namesSameKeys(present, proven)))
    doubt('its superblock is not the one that was proven');
  const superblocks = proven === undefined ? onDisk : [proven, ...onDisk];
  return { volume: name, superblocks, segmentsByDek: undefined, doubts };
}
