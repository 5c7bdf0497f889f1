/** How far a chain may grow: `restore` takes no longer one, so none is made. */
import { SealbdError } from '../base/errors.js';
import { BACKUPS_PER_CHAIN_MAX, DEKS_PER_VOLUME_MAX } from '../base/limits.js';
import type { BackupDirectory } from './backup-directory.js';
import { chainDeks } from './chain-keys.js';

export interface ChainLimits {
  /** Of a chain, the full backup among them. */
  readonly backupsMax: number;
  /** Of the volume that is restored: those of the chain, and one of its own. */
  readonly deksMax: number;
}

export const CHAIN_LIMITS: ChainLimits = {
  backupsMax: BACKUPS_PER_CHAIN_MAX,
  deksMax: DEKS_PER_VOLUME_MAX,
};

/** CONFLICT where no backup can stand on this chain. */
export function assertMayGrow(
  chain: readonly BackupDirectory[],
  { backupsMax, deksMax }: ChainLimits = CHAIN_LIMITS,
): void {
  const { path } = chain[chain.length - 1];
  if (chain.length >= backupsMax)
    throw full(path, `is the last of ${backupsMax} backups, the most of a chain`);
  const deks = chainDeks(chain).length;
  if (deks >= deksMax)
    throw full(path, `needs ${deks} DEKs with its base, and a volume has ${deksMax} at most`);
}

/** CONFLICT where a backup on `chain`, or a full one, that may need these DEKs too would need more than can be restored. */
export function assertDeksFit(
  chain: readonly BackupDirectory[],
  deks: Iterable<number>,
  { deksMax }: ChainLimits = CHAIN_LIMITS,
): void {
  const all = new Set([...chainDeks(chain).map(({ id }) => id), ...deks]);
  all.delete(0); // The public key is no DEK.
  if (all.size < deksMax) return;
  const excess = `the backup would need ${all.size} DEKs, and a volume restored from it one more: it has ${deksMax} at most`;
  const way = chain.length > 0 ? 'make a full backup' : 're-encrypt the volume first';
  throw new SealbdError('CONFLICT', `${excess}: ${way}`);
}

function full(path: string, why: string): SealbdError {
  return new SealbdError('CONFLICT', `${path} ${why}: make a full backup`);
}
