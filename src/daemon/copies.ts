/** The parts that copy volumes: backups, restores, clones; put together. */
import type { Logger } from '../base/log.js';
import { FsStore } from '../store/fs-store.js';
import { BackupFiles } from './backup-files.js';
import { Backups, type BackupsOptions } from './backups.js';
import { KnownBackups } from './known-backups.js';
import { Restores, type RestoresOptions } from './restores.js';

type CopiesOptions = Omit<BackupsOptions & RestoresOptions, 'known' | 'backupFiles'>;

export interface Copies {
  readonly backups: Backups;
  readonly restores: Restores;
}

/** `dataPath` is DIR, where the list of known backups is kept. */
export function openKnownBackups(dataPath: string, log: Logger): KnownBackups {
  return new KnownBackups(FsStore.at(dataPath), log);
}

export function openCopies(
  options: CopiesOptions,
  known: KnownBackups,
  backupFiles = new BackupFiles(),
): Copies {
  const all = { ...options, known, backupFiles };
  return { backups: new Backups(all), restores: new Restores(all) };
}
