/** What a backup says of itself, and whether its keys can be used now. Nothing but the last is proven. */
import { type CipherName, suiteName } from '../base/ciphers.js';
import { isSealbdError, messageOf } from '../base/errors.js';
import { BLOCK_BYTES, SLOT_BYTES } from '../base/limits.js';
import { formatUuid } from '../base/random.js';
import type { DekRecord } from '../keys/dek-record.js';
import { unwrapDek } from '../keys/header-unwrap.js';
import type { KeyProviders } from '../kms/registry.js';
import { addon } from '../native/addon.js';
import type { Store } from '../store/store.js';
import { BackupDirectory, openChain } from './backup-directory.js';
import { chainDeks } from './chain-keys.js';
import { whyUnproven } from './proof.js';

export interface BackupKey {
  readonly keyUri: string;
  readonly resolvedKeyId: string;
  readonly deks: number[];
  /** Opens all of them, at this moment, from here. */
  readonly usable: boolean;
  /** It can be used, and does not open them: the backup is damaged, or somebody else's. */
  readonly damaged: boolean;
  readonly reason: string | null;
}

export interface BackupInfo {
  readonly path: string;
  readonly uuid: string;
  readonly volume: string;
  readonly volumeUuid: string;
  readonly origins: string[];
  readonly createdAt: string;
  readonly kind: 'full' | 'incremental';
  readonly cipher: CipherName;
  readonly sizeBytes: number;
  readonly mappedBytes: number;
  readonly storedBytes: number;
  readonly segments: number;
  readonly sequence: number;
  /** Oldest first, itself last. */
  readonly chain: {
    readonly path: string;
    readonly uuid: string;
    readonly createdAt: string;
    readonly storedBytes: number;
  }[];
  /** Why the chain is not whole; null where it is. */
  readonly problem: string | null;
  /** Why its keys would not prove all of it; null where they would. */
  readonly unproven: string | null;
  readonly keys: BackupKey[];
  /** Every key of the chain can be used. */
  readonly keyUsable: boolean;
}

export async function describeBackup(
  path: string,
  storeAt: (path: string) => Store,
  providers: KeyProviders,
): Promise<BackupInfo> {
  const newest = await BackupDirectory.open(storeAt(path));
  const { chain, problem } = await chainOf(newest, path, storeAt);
  const { manifest } = newest;
  const keys = await keysOf(chainDeks(chain), manifest.uuid, providers);
  return {
    path,
    uuid: formatUuid(manifest.backupUuid),
    volume: manifest.name,
    volumeUuid: formatUuid(manifest.uuid),
    origins: manifest.origins.map(({ uuid }) => formatUuid(uuid)),
    createdAt: isoTime(manifest.createdAt),
    kind: manifest.base === undefined ? 'full' : 'incremental',
    cipher: suiteName(manifest.suite),
    sizeBytes: manifest.sizeBytes,
    mappedBytes: manifest.mappedBlocks * BLOCK_BYTES,
    storedBytes: manifest.slots * SLOT_BYTES,
    segments: manifest.segments,
    sequence: manifest.sequence,
    chain: chain.map((backup) => ({
      path: backup.path,
      uuid: formatUuid(backup.manifest.backupUuid),
      createdAt: isoTime(backup.manifest.createdAt),
      storedBytes: backup.manifest.slots * SLOT_BYTES,
    })),
    problem,
    unproven: whyUnproven(chain),
    keys,
    keyUsable: keys.every((key) => key.usable),
  };
}

function isoTime(unixMs: number): string {
  return new Date(unixMs).toISOString();
}

/** The backup alone where its base is not to be found. */
async function chainOf(
  newest: BackupDirectory,
  path: string,
  storeAt: (path: string) => Store,
): Promise<{ chain: readonly BackupDirectory[]; problem: string | null }> {
  try {
    return { chain: await openChain(path, storeAt), problem: null };
  } catch (error) {
    if (!isSealbdError(error, 'INTEGRITY')) throw error;
    return { chain: [newest], problem: messageOf(error) };
  }
}

async function keysOf(
  deks: readonly DekRecord[],
  uuid: Uint8Array,
  providers: KeyProviders,
): Promise<BackupKey[]> {
  const names = new Map<string, DekRecord[]>();
  for (const dek of deks) {
    const name = JSON.stringify([dek.keyUri, dek.resolvedKeyId]);
    names.set(name, [...(names.get(name) ?? []), dek]);
  }
  const keys: BackupKey[] = [];
  for (const under of names.values()) {
    const [{ keyUri, resolvedKeyId }] = under;
    const deks = under.map((dek) => dek.id);
    keys.push({ keyUri, resolvedKeyId, deks, ...(await usability(under, uuid, providers)) });
  }
  return keys;
}

/** A real unwrap of each, wiped at once. */
async function usability(
  deks: readonly DekRecord[],
  uuid: Uint8Array,
  providers: KeyProviders,
): Promise<Pick<BackupKey, 'usable' | 'damaged' | 'reason'>> {
  try {
    for (const dek of deks) addon.keyRelease(await unwrapDek(uuid, dek, providers));
    return { usable: true, damaged: false, reason: null };
  } catch (error) {
    if (!isSealbdError(error)) throw error;
    return { usable: false, damaged: error.code === 'INTEGRITY', reason: error.message };
  }
}
