/** Which KMS keys the DEKs of all volumes depend on, as their superblocks tell. Pure: who reads them says how far to trust them. */
import { formatUuid } from '../base/random.js';
import { originOf } from './origins.js';
import type { DekState, Superblock } from './superblock.js';

export interface KnownVolume {
  readonly volume: string;
  /** What is in use, and what the copies on the disk say: where they differ, each of their keys may be needed. */
  readonly superblocks: readonly Superblock[];
  /** Undefined where the volume is not open. */
  readonly segmentsByDek: ReadonlyMap<number, { segments: number; bytes: number }> | undefined;
  /** Why it may depend on more keys than `superblocks` name, one sentence each. */
  readonly doubts: readonly string[];
}

export interface DekUse {
  readonly id: number;
  /** The uuid of the volume that made it: with its number, this names the same key in every volume. */
  readonly origin: string;
  /** Other volumes that have it too. */
  readonly sharedWith: readonly string[];
  readonly state: DekState;
  readonly exposed: boolean;
  readonly keyVersion: string;
  readonly segments: number | null;
  readonly bytes: number | null;
}

/** A backup that somebody knows of. */
export interface BackupUse {
  readonly path: string;
  readonly volume: string;
  readonly createdAt: string;
  readonly deks: readonly { readonly id: number; readonly keyUri: string; readonly resolvedKeyId: string }[];
  /** It is where it was. */
  readonly present: boolean;
  /** Why it may be there though it was not found; null where it was, or is gone for sure. */
  readonly doubt: string | null;
}

export interface KeyUse {
  readonly keyUri: string;
  readonly resolvedKeyId: string;
  readonly keyVersions: readonly string[];
  readonly volumes: readonly { readonly volume: string; readonly deks: readonly DekUse[] }[];
  readonly backups: readonly BackupUse[];
}

/** One row for each pair of a key and a URI by which volumes and backups name it, sorted. */
export function keysInUse(volumes: readonly KnownVolume[], backups: readonly BackupUse[] = []): KeyUse[] {
  const names = new Map<string, { keyUri: string; resolvedKeyId: string }>();
  const records = [...volumes.flatMap(({ superblocks }) => superblocks), ...backups].flatMap(({ deks }) => [
    ...deks,
  ]);
  for (const { keyUri, resolvedKeyId } of records)
    names.set(JSON.stringify([keyUri, resolvedKeyId]), { keyUri, resolvedKeyId });
  const holders = holdersOf(volumes);
  const sorted = [...names].sort(([a], [b]) => (a < b ? -1 : 1));
  return sorted.map(([, { keyUri, resolvedKeyId }]) => {
    const users = volumes
      .map((known) => ({ volume: known.volume, deks: deksUnder(known, keyUri, resolvedKeyId, holders) }))
      .filter(({ deks }) => deks.length > 0);
    const versions = users.flatMap(({ deks }) => deks.map((dek) => dek.keyVersion));
    const keyVersions = [...new Set(versions)].filter((version) => version !== '').sort();
    const needing = backups.filter(({ deks }) =>
      deks.some((dek) => dek.keyUri === keyUri && dek.resolvedKeyId === resolvedKeyId),
    );
    return { keyUri, resolvedKeyId, keyVersions, volumes: users, backups: needing };
  });
}

/** Which volumes have a DEK, by its name. */
function holdersOf(volumes: readonly KnownVolume[]): Map<string, Set<string>> {
  const holders = new Map<string, Set<string>>();
  for (const { volume, superblocks } of volumes) {
    for (const superblock of superblocks) {
      for (const { id } of superblock.deks) {
        const name = nameOf(superblock, id);
        holders.set(name, (holders.get(name) ?? new Set()).add(volume));
      }
    }
  }
  return holders;
}

function nameOf(superblock: Superblock, id: number): string {
  return `${formatUuid(originOf(superblock, id))} ${id}`;
}

/** The first superblock that names a DEK under this key speaks for it. */
function deksUnder(
  { volume, superblocks, segmentsByDek }: KnownVolume,
  uri: string,
  resolved: string,
  holders: ReadonlyMap<string, ReadonlySet<string>>,
): DekUse[] {
  const uses = new Map<number, DekUse>();
  for (const superblock of superblocks) {
    for (const { id, state, exposed, keyVersion, keyUri, resolvedKeyId } of superblock.deks) {
      if (keyUri !== uri || resolvedKeyId !== resolved || uses.has(id)) continue;
      const stored = segmentsByDek?.get(id) ?? { segments: 0, bytes: 0 };
      const amounts = segmentsByDek === undefined ? { segments: null, bytes: null } : stored;
      const origin = formatUuid(originOf(superblock, id));
      const others = holders.get(nameOf(superblock, id)) ?? [];
      const sharedWith = [...others].filter((other) => other !== volume).sort();
      uses.set(id, { id, origin, sharedWith, state, exposed, keyVersion, ...amounts });
    }
  }
  return [...uses.values()];
}

/** True where the URI spells the key itself out, as an ARN or a key id does and an alias does not. */
export function spellsOut(uri: string, resolvedKeyId: string): boolean {
  const key = uri.replace(/^[^:]*:\/*/, '');
  return resolvedKeyId === key || resolvedKeyId.endsWith(`/${key}`);
}

/** Whether two superblocks of one volume hold the same DEKs, wrapped in the same way by the same keys. */
export function namesSameKeys(one: Superblock, other: Superblock): boolean {
  const keys = ({ deks }: Superblock): string => {
    const names = deks.map(({ id, keyUri, resolvedKeyId, keyVersion, wrapped }) => {
      return [id, keyUri, resolvedKeyId, keyVersion, Buffer.from(wrapped).toString('hex')];
    });
    return JSON.stringify(names);
  };
  return keys(one) === keys(other);
}
