/** What a key proves of a chain of backups. What is in plaintext carries checksums alone, which anybody can make. */
import type { BackupDirectory } from './backup-directory.js';

/** Why its keys do not prove all of it, in words; null where they do. Only as true as the manifests are. */
export function whyUnproven(chain: readonly BackupDirectory[]): string | null {
  const manifests = chain.map(({ manifest }) => manifest);
  if (manifests.some(({ suite }) => suite === 0)) return 'its cipher is none: nothing proves it';
  if (manifests.some(({ plain }) => plain))
    return 'its volume was none, and not rewritten yet: nothing proves what is in plaintext';
  return null;
}
