/**
 * Backups that were made or restored here: `DIR/backups.json`, for `key usage` alone (docs/FORMAT.md, "Known backups"). Nothing
 * else depends on it, so one that is damaged is a doubt, and no failure.
 */
import { join } from 'node:path';
import { BackupDirectory } from '../backup/backup-directory.js';
import { INCOMPLETE, MANIFEST } from '../backup/names.js';
import { mayBeThere, type Place, placeOf, whyNotGone } from '../backup/place.js';
import { messageOf, SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { formatUuid } from '../base/random.js';
import type { DekRecord } from '../keys/dek-record.js';
import type { BackupUse } from '../keys/key-usage.js';
import type { Store } from '../store/store.js';
import { createWhole } from '../store/whole-file.js';
import type { BackupFiles } from './backup-files.js';
import {
  decodeKnown,
  encodeKnown,
  type KnownBackup,
  type KnownFile,
  NOTHING_KNOWN,
  oldestBeyond,
} from './known-backups-file.js';

const FILE = 'backups.json';

/** What is noted of a backup. A manifest is one; of a backup that has none yet there is no `backupUuid`. */
export interface BackupFacts {
  readonly backupUuid: Uint8Array | undefined;
  readonly uuid: Uint8Array;
  readonly name: string;
  /** Unix ms. */
  readonly createdAt: number;
}

export interface LookedAt {
  readonly backups: readonly BackupUse[];
  /** How many were dropped from the list though they were not known to be gone. */
  readonly forgotten: number;
}

type Change = (known: KnownFile) => KnownFile;

export class KnownBackups {
  readonly #store: Store;
  readonly #files: BackupFiles;
  readonly #log: Logger;
  readonly #beingMade = new Set<string>();
  /** What could not be written yet; it counts, and goes with the next that can. */
  #unwritten: Change[] = [];
  #changing: Promise<void> = Promise.resolve();

  /** `store` is that of the data directory; `files` are what backups are looked at through. */
  constructor(store: Store, files: BackupFiles, log: Logger) {
    this.#store = store;
    this.#files = files;
    this.#log = log;
  }

  /** Rejects where the file can't be read, or is none of ours. */
  async list(): Promise<KnownFile> {
    const bytes = await this.#store.readSmall(FILE);
    const known = bytes === undefined ? NOTHING_KNOWN : decodeKnown(bytes);
    return this.#unwritten.reduce((before, change) => change(before), known);
  }

  /** Where each of them is now. */
  async look(): Promise<LookedAt> {
    const { backups, forgotten } = await this.list();
    const uses: BackupUse[] = [];
    for (const known of backups) {
      const { path, volume, createdAt, deks } = known;
      uses.push({ path, volume, createdAt, deks, ...(await this.#whereabouts(known)) });
    }
    return { backups: uses, forgotten };
  }

  async #whereabouts(known: KnownBackup): Promise<Pick<BackupUse, 'present' | 'doubt'>> {
    const { path, place, gone, uuid } = known;
    const making = this.#beingMade.has(path);
    const underWay = { present: false, doubt: 'it is being made at this moment' };
    // Its files have the thread of that place: a look would wait for it.
    if (making && uuid === null) return underWay;
    if (await isThere(this.#files.at(path), known)) return { present: true, doubt: null };
    if (making) return underWay;
    const isNone = gone || (uuid === null && (await isUnfinished(this.#files.at(path))));
    const doubt = isNone ? undefined : await this.#whyNotGone(path, place);
    return { present: false, doubt: doubt ?? null };
  }

  /** A backup that is to be made there, and `deks`, those that it may need. Until `ended` it is a doubt. */
  async begun(
    path: string,
    facts: Omit<BackupFacts, 'backupUuid'>,
    deks: readonly DekRecord[],
  ): Promise<void> {
    this.#beingMade.add(path);
    await this.note(path, { ...facts, backupUuid: undefined }, deks);
  }

  ended(path: string): void {
    this.#beingMade.delete(path);
  }

  /** `deks` are those of its whole chain. The oldest are forgotten when there are too many. A failure is no failure of the backup. */
  async note(path: string, facts: BackupFacts, deks: readonly DekRecord[]): Promise<void> {
    const place = await this.#files.run(path, () => placeOf(path)).catch(() => undefined); // Then its absence will prove nothing.
    const entry = entryOf(path, place, facts, deks);
    await this.#change((known) => {
      const { backups, forgotten } = withoutUnfinished(known, path, entry.uuid);
      return { backups: [...backups, entry], forgotten };
    });
  }

  /** Nothing came of the one that was to be made there; `backupUuid` where it was to have this one. */
  dropped(path: string, backupUuid: Uint8Array | undefined): Promise<void> {
    return this.#change((known) => withoutUnfinished(known, path, uuidOrNull(backupUuid)));
  }

  /** Before something else is put there: those that are gone from there are so for good. */
  async leaveTo(path: string): Promise<void> {
    // One that can't be read is a doubt already.
    const { backups } = await this.list().catch(() => NOTHING_KNOWN);
    const gone = new Set<string>();
    for (const { uuid, place, path: other } of backups)
      if (other === path && uuid !== null && (await this.#whyNotGone(path, place)) === undefined)
        gone.add(uuid);
    if (gone.size === 0) return;
    await this.#change((known) => ({
      ...known,
      backups: known.backups.map((other) => {
        return other.path === path && gone.has(other.uuid ?? '') ? { ...other, gone: true } : other;
      }),
    }));
  }

  async listedAt(path: string): Promise<readonly KnownBackup[]> {
    const { backups } = await this.list();
    return backups.filter((known) => known.path === path);
  }

  /** Those that are listed under `path`, and why one of them may be there: undefined where none is. */
  async lookAt(path: string): Promise<{ listed: readonly KnownBackup[]; found: string | undefined }> {
    const listed = await this.listedAt(path);
    for (const known of listed) {
      if ((await this.#whereabouts(known)).present) return { listed, found: 'is there' };
      if (await this.#mayBeDamaged(known)) return { listed, found: 'can not be read, or is damaged' };
    }
    return { listed, found: undefined };
  }

  /** Something has its name that is no backup which is being made, or was begun and given up. */
  async #mayBeDamaged({ path, gone, uuid }: KnownBackup): Promise<boolean> {
    // Its files have the thread of that place, and `forget` refuses it anyway.
    if (this.#beingMade.has(path)) return false;
    if (gone || (uuid === null && (await isUnfinished(this.#files.at(path))))) return false;
    return this.#files.run(path, () => mayBeThere(path));
  }

  /**
   * Takes these out of the list for good, whatever is at their paths. CONFLICT where one is being made at such a path. Where it
   * rejects with something else the list could not be written, and the disk says what is left of it.
   */
  forget(backups: readonly KnownBackup[]): Promise<void> {
    const isOut = ({ path, uuid }: KnownBackup) => {
      return backups.some((other) => other.path === path && other.uuid === uuid);
    };
    return this.#changeNow((known) => {
      const making = backups.find(({ path }) => this.#beingMade.has(path));
      if (making !== undefined)
        throw new SealbdError('CONFLICT', `${making.path}: a backup is being made there at this moment`);
      return { ...known, backups: known.backups.filter((other) => !isOut(other)) };
    });
  }

  /** Counts those no more that were dropped from the list. Resolves to their number. */
  async forgetDropped(): Promise<number> {
    let dropped = 0;
    await this.#changeNow(({ backups, forgotten }) => {
      dropped = forgotten;
      return { backups, forgotten: 0 };
    });
    return dropped;
  }

  #whyNotGone(path: string, place: Place | undefined): Promise<string | undefined> {
    return this.#files.run(path, () => whyNotGone(path, place));
  }

  #change(change: Change): Promise<void> {
    this.#unwritten.push(change);
    this.#changing = this.#changing.then(() => this.#write());
    return this.#changing;
  }

  /** In its turn; rejects, and is given up, where it can't be written. */
  #changeNow(change: Change): Promise<void> {
    const done = this.#changing.then(async () => {
      const count = this.#unwritten.length;
      await this.#replace(encodeKnown(await this.#fitting(change(await this.list()))));
      this.#unwritten = this.#unwritten.slice(count);
    });
    this.#changing = done.catch(() => undefined);
    return done;
  }

  async #write(): Promise<void> {
    const count = this.#unwritten.length;
    if (count === 0) return; // Another one wrote it too.
    try {
      const known = await this.list();
      await this.#replace(encodeKnown(await this.#fitting(known)));
      this.#unwritten = this.#unwritten.slice(count);
    } catch (error) {
      const fields = { path: join(this.#store.path, FILE), reason: messageOf(error) };
      this.#log.error(fields, 'could not note a backup');
    }
  }

  /** Those that are gone leave the list first, and are not missed. */
  async #fitting(known: KnownFile): Promise<KnownFile> {
    let { backups, forgotten } = known;
    let excess = oldestBeyond({ backups, forgotten });
    if (excess === 0) return known;
    const kept: KnownBackup[] = [];
    for (const backup of backups) {
      const { path, place, gone } = backup;
      if (excess > 0 && (gone || (await this.#whyNotGone(path, place)) === undefined)) excess -= 1;
      else kept.push(backup);
    }
    backups = kept;
    excess = oldestBeyond({ backups, forgotten });
    forgotten += excess;
    return { backups: backups.slice(excess), forgotten };
  }

  async #replace(bytes: Uint8Array): Promise<void> {
    const temporary = `${FILE}.tmp`;
    await this.#store.remove(temporary);
    await createWhole(this.#store, temporary, (file) => file.write(bytes, 0));
    await this.#store.rename(temporary, FILE);
    await this.#store.syncDirectory();
  }
}

function entryOf(
  path: string,
  place: Place | undefined,
  { backupUuid, uuid, name, createdAt }: BackupFacts,
  deks: readonly DekRecord[],
): KnownBackup {
  return {
    ...{ path, place, gone: false },
    uuid: uuidOrNull(backupUuid),
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
}

function uuidOrNull(uuid: Uint8Array | undefined): string | null {
  return uuid === undefined ? null : formatUuid(uuid);
}

/** Leaves out what was to be made at `path`, and the backup `uuid` there. */
function withoutUnfinished({ backups, forgotten }: KnownFile, path: string, uuid: string | null): KnownFile {
  const isOut = (other: KnownBackup) => other.path === path && (other.uuid === null || other.uuid === uuid);
  return { backups: backups.filter((other) => !isOut(other)), forgotten };
}

/** One that was to be made is told by its volume: its directory was claimed for it. */
async function isThere(store: Store, { uuid, volumeUuid }: KnownBackup): Promise<boolean> {
  try {
    const { manifest } = await BackupDirectory.open(store);
    return uuid === null
      ? formatUuid(manifest.uuid) === volumeUuid
      : formatUuid(manifest.backupUuid) === uuid;
  } catch {
    return false; // Why not is asked by who wants to know whether it is gone.
  }
}

/** The mark of a backup that was never finished is there, and no manifest. */
async function isUnfinished(store: Store): Promise<boolean> {
  try {
    const names = await store.list();
    return names.includes(INCOMPLETE) && !names.includes(MANIFEST);
  } catch {
    return false; // The same.
  }
}
