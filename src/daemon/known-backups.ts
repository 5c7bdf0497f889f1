/**
 * Backups that were made or restored here: `DIR/backups.json`, for `key usage` alone. Nothing else depends on it, so one that is
 * damaged is a doubt, and no failure.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { BackupDirectory } from '../backup/backup-directory.js';
import type { Manifest } from '../backup/manifest.js';
import { messageOf } from '../base/errors.js';
import { KNOWN_BACKUPS_MAX } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import { formatUuid } from '../base/random.js';
import type { DekRecord } from '../keys/dek-record.js';
import type { BackupUse } from '../keys/key-usage.js';
import { FsStore } from '../store/fs-store.js';
import type { Store } from '../store/store.js';
import { createWhole } from '../store/whole-file.js';

const FILE = 'backups.json';

const knownBackupSchema = z.object({
  path: z.string(),
  uuid: z.string(),
  volume: z.string(),
  volumeUuid: z.string(),
  createdAt: z.iso.datetime(),
  deks: z.array(
    z.object({ id: z.int(), keyUri: z.string(), resolvedKeyId: z.string(), keyVersion: z.string() }),
  ),
});
const fileSchema = z.object({ version: z.literal(1), backups: z.array(knownBackupSchema) });
export type KnownBackup = z.infer<typeof knownBackupSchema>;

export class KnownBackups {
  readonly #store: Store;
  readonly #log: Logger;
  #changing: Promise<void> = Promise.resolve();

  /** `store` is that of the data directory. */
  constructor(store: Store, log: Logger) {
    this.#store = store;
    this.#log = log;
  }

  /** Oldest first. Rejects where the file can't be read, or is none of ours. */
  async list(): Promise<KnownBackup[]> {
    const bytes = await this.#store.readSmall(FILE);
    if (bytes === undefined) return [];
    return fileSchema.parse(JSON.parse(bytes.toString('utf8'))).backups;
  }

  /** The same, with whether each is where it was. */
  async look(): Promise<BackupUse[]> {
    const uses: BackupUse[] = [];
    for (const { path, uuid, volume, createdAt, deks } of await this.list())
      uses.push({ path, volume, createdAt, deks, present: await isThere(path, uuid) });
    return uses;
  }

  /** `deks` are those of its whole chain. The oldest are forgotten when there are too many. A failure is no failure of the backup. */
  note(
    path: string,
    { backupUuid, uuid, name, createdAt }: Manifest,
    deks: readonly DekRecord[],
  ): Promise<void> {
    const entry: KnownBackup = {
      path,
      uuid: formatUuid(backupUuid),
      volume: name,
      volumeUuid: formatUuid(uuid),
      createdAt: new Date(createdAt).toISOString(),
      deks: deks.map(({ id, keyUri, resolvedKeyId, keyVersion }) => ({
        id,
        keyUri,
        resolvedKeyId,
        keyVersion,
      })),
    };
    this.#changing = this.#changing
      .then(() => this.#add(entry))
      .catch((error: unknown) => {
        this.#log.error(
          { path: join(this.#store.path, FILE), reason: messageOf(error) },
          'could not note a backup',
        );
      });
    return this.#changing;
  }

  async #add(entry: KnownBackup): Promise<void> {
    const others = (await this.list()).filter(({ uuid, path }) => uuid !== entry.uuid || path !== entry.path);
    const backups = [...others, entry].slice(-KNOWN_BACKUPS_MAX);
    await this.#replace(Buffer.from(`${JSON.stringify({ version: 1, backups }, null, 1)}\n`));
  }

  async #replace(bytes: Uint8Array): Promise<void> {
    const temporary = `${FILE}.tmp`;
    await this.#store.remove(temporary);
    await createWhole(this.#store, temporary, (file) => file.write(bytes, 0));
    await this.#store.rename(temporary, FILE);
    await this.#store.syncDirectory();
  }
}

async function isThere(path: string, uuid: string): Promise<boolean> {
  try {
    const { manifest } = await BackupDirectory.open(FsStore.at(path));
    return formatUuid(manifest.backupUuid) === uuid;
  } catch {
    return false; // Missing, unreadable or another one: not the backup that was noted.
  }
}
