/** How far a chain may grow: `restore` takes no longer one, so none is made. */
import { SealbdError } from '../base/errors.js';
import { BACKUPS_PER_CHAIN_MAX } from '../base/limits.js';
import type { DekRecord } from '../keys/dek-record.js';
import { INHERITANCE_LIMITS, type InheritanceLimits, whyNotInherited } from '../keys/inheritance.js';
import type { Lineage } from '../keys/origins.js';
import type { BackupDirectory } from './backup-directory.js';
import { chainDeks } from './chain-keys.js';

/** Beside those of the volume that is restored. */
export interface ChainLimits extends InheritanceLimits {
  /** Of a chain, the full backup among them. */
  readonly backupsMax: number;
}

export const CHAIN_LIMITS: ChainLimits = { backupsMax: BACKUPS_PER_CHAIN_MAX, ...INHERITANCE_LIMITS };

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
    throw full(path, `needs ${deks} DEKs with its base, and a volume gets ${deksMax} at most`);
}

/** CONFLICT where a backup on `chain`, or a full one, that may need these DEKs of the volume too would be one that can't be restored. */
export function assertRestorable(
  chain: readonly BackupDirectory[],
  volume: Lineage,
  deks: readonly DekRecord[],
  limits: ChainLimits = CHAIN_LIMITS,
): void {
  const all = new Map([...chainDeks(chain), ...deks].map((dek) => [dek.id, dek]));
  const sorted = [...all.values()].sort((a, b) => a.id - b.id);
  const problem = whyNotInherited(volume, sorted, limits);
  if (problem === undefined) return;
  const way =
    chain.length > 0 ? 'make a full backup, or re-encrypt the volume first' : 're-encrypt the volume first';
  throw new SealbdError('CONFLICT', `no volume could be restored from the backup, since ${problem}: ${way}`);
}

function full(path: string, why: string): SealbdError {
  return new SealbdError('CONFLICT', `${path} ${why}: make a full backup`);
}
