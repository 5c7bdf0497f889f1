/** The parts that copy volumes: backups, restores, clones; put together. */
import type { Logger } from '../base/log.js';
import { JobKeys, type JobKeysOptions } from '../keys/job-keys.js';
import { FsStore } from '../store/fs-store.js';
import type { BackupFiles } from './backup-files.js';
import { Backups, type BackupsOptions } from './backups.js';
import { Forgetting } from './forgetting.js';
import { KnownBackups } from './known-backups.js';
import { Restores, type RestoresOptions } from './restores.js';

type CopiesOptions = Omit<BackupsOptions & RestoresOptions, 'known' | 'backupFiles' | 'jobKeys'> &
  JobKeysOptions;

export interface Copies {
  readonly backups: Backups;
  readonly restores: Restores;
  readonly forgetting: Forgetting;
}

/** `dataPath` is DIR, where the list of known backups is kept. */
export function openKnownBackups(dataPath: string, backupFiles: BackupFiles, log: Logger): KnownBackups {
  return new KnownBackups(FsStore.at(dataPath), backupFiles, log);
}

export function openCopies(options: CopiesOptions, known: KnownBackups, backupFiles: BackupFiles): Copies {
  const all = { ...options, known, backupFiles, jobKeys: new JobKeys(options) };
  return { backups: new Backups(all), restores: new Restores(all), forgetting: new Forgetting(all) };
}
