/**
 * What happened to a volume and its key, told by comparing it before and after an operation: so no operation can
 * forget to report. The events go to the audit log and to the hook, and hold nothing secret.
 */
import type { Caller } from '../admin/backend.js';
import { formatUuid } from '../base/random.js';
import { type DekRecord, newestDek, type Superblock } from '../keys/superblock.js';
import type { KeyState } from '../keys/watch-state.js';
import { SUITE_NONE } from '../native/addon.js';
import type { ManagedVolume } from './managed-volume.js';

/** Who asked. */
export type Actor = Caller | { readonly kind: 'watchdog' | 'startup' | 'shutdown' };
export const WATCHDOG: Actor = { kind: 'watchdog' };
export const STARTUP: Actor = { kind: 'startup' };
export const SHUTDOWN: Actor = { kind: 'shutdown' };

/** What an operator may ask of keys, or that changes what is known of their use. */
export type KeyOperation =
  | 'key-set'
  | 'key-rewrap'
  | 'rotate'
  | 'encrypt'
  | 'header-restore'
  | 'export-local'
  | 'import-local'
  | 'backup-forget';

export interface VolumeEvent {
  readonly event:
    | 'create'
    | 'wrap'
    | 'unwrap'
    | 'start'
    | 'stop'
    | 'delete'
    | 'key-state'
    | 'key-set'
    | 'key-rewrap'
    | 'rotate'
    | 'encrypt'
    | 'destroy'
    | 'header-restore'
    | 'make-local'
    | 'export-local'
    | 'import-local'
    | 'snapshot-create'
    | 'snapshot-delete'
    | 'snapshot-rollback'
    | 'backup'
    | 'backup-forget'
    | 'restore'
    | 'clone'
    | 'failed';
  /** Null where it is about a `local:` key alone, or about backups that nobody has a list of. */
  readonly volume: string | null;
  readonly uuid: string | null;
  readonly by: Actor;
  /** What was asked for and failed. */
  readonly operation?: KeyOperation;
  /** Why it stopped or failed, or what is wrong with the key. */
  readonly reason?: string | null;
  /** States of the key, or key URIs. */
  readonly from?: KeyState | string | null;
  readonly to?: KeyState | string;
  readonly snapshot?: string;
  /** Of a backup. */
  readonly path?: string | undefined;
  /** How many backups that were dropped from the list of known ones count no more. */
  readonly dropped?: number;
  /** The volume that was backed up or cloned. */
  readonly source?: string;
  readonly dekId?: number;
  readonly keyUri?: string | undefined;
  readonly resolvedKeyId?: string;
  readonly fromResolvedKeyId?: string | undefined;
}

export interface Snapshot {
  readonly exists: boolean;
  /** The epoch of a volume that is open. */
  readonly opened: number | undefined;
  readonly key: KeyState | undefined;
  readonly superblock: Superblock | undefined;
}

export function snapshotOf(volume: ManagedVolume | undefined): Snapshot {
  return {
    exists: volume !== undefined,
    opened: volume?.device === undefined ? undefined : volume.epoch,
    key: volume?.keyCheck?.state,
    superblock: volume?.superblock,
  };
}

/** What led from `before` to how `volume` is now; undefined where it is no more. */
export function eventsSince(
  name: string,
  before: Snapshot,
  volume: ManagedVolume | undefined,
  by: Actor,
): VolumeEvent[] {
  const after = snapshotOf(volume);
  const superblock = after.superblock ?? before.superblock;
  const uuid = superblock === undefined ? null : formatUuid(superblock.uuid);
  const base = { volume: name, uuid, by };
  const deks = superblock?.deks ?? [];
  const events: VolumeEvent[] = [];
  const opened = after.opened !== undefined && after.opened !== before.opened;
  if (!before.exists && after.exists) {
    events.push({ event: 'create', ...base });
    for (const dek of deks) events.push({ event: 'wrap', ...base, ...keyOf(dek) });
  }
  if (after.key !== undefined && after.key !== before.key) {
    const active = superblock === undefined ? undefined : newestDek(superblock);
    const change = { from: before.key ?? null, to: after.key, reason: volume?.keyCheck?.reason ?? null };
    events.push({ event: 'key-state', ...base, ...(active === undefined ? {} : keyOf(active)), ...change });
  }
  if (before.opened !== undefined && before.opened !== after.opened)
    events.push({ event: 'stop', ...base, reason: volume?.reason ?? null });
  if (before.exists && !after.exists) events.push({ event: 'delete', ...base });
  if (opened) {
    for (const dek of deks) events.push({ event: 'unwrap', ...base, ...keyOf(dek) });
    // Begun before a crash, and ended by opening the volume.
    const rotated = deks.find((dek) => dek.id === volume?.rotatedDek);
    if (rotated !== undefined) events.push({ event: 'rotate', ...base, ...keyOf(rotated) });
    events.push({ event: 'start', ...base });
  }
  return events;
}

/** What came of an operation on the DEKs: new ones, the same ones wrapped anew, old ones destroyed. */
export function dekEvents(volume: string, before: Superblock, after: Superblock, by: Actor): VolumeEvent[] {
  const base = { volume, uuid: formatUuid(after.uuid), by };
  const missing = (deks: readonly DekRecord[], from: Superblock) =>
    deks.filter((dek) => !from.deks.some((other) => other.id === dek.id));
  return [
    ...missing(after.deks, before).flatMap((dek): VolumeEvent[] => [
      { event: 'wrap', ...base, ...keyOf(dek) },
      { event: before.suite === SUITE_NONE ? 'encrypt' : 'rotate', ...base, ...keyOf(dek) },
    ]),
    ...rewrapEvents(base, before, after),
    ...missing(before.deks, after).map((dek): VolumeEvent => ({ event: 'destroy', ...base, ...keyOf(dek) })),
  ];
}

/** `key set` or `key rewrap`: one line for it, and one for each DEK that was wrapped. */
function rewrapEvents(
  base: { volume: string; uuid: string; by: Actor },
  before: Superblock,
  after: Superblock,
): VolumeEvent[] {
  const wrapped = after.deks.flatMap((dek) => {
    const old = before.deks.find((candidate) => candidate.id === dek.id);
    return old === undefined || old.wrapped === dek.wrapped ? [] : [{ dek, old }];
  });
  if (wrapped.length === 0) return [];
  const { dek, old } = wrapped[wrapped.length - 1];
  const moved = old.keyUri !== dek.keyUri || old.resolvedKeyId !== dek.resolvedKeyId;
  const change = { from: old.keyUri, to: dek.keyUri };
  const keys = { resolvedKeyId: dek.resolvedKeyId, fromResolvedKeyId: old.resolvedKeyId };
  return [
    { event: moved ? 'key-set' : 'key-rewrap', ...base, ...change, ...keys },
    ...wrapped.map((each): VolumeEvent => ({ event: 'wrap', ...base, ...keyOf(each.dek) })),
  ];
}

/** Another superblock was put in place by hand: the key of its newest DEK, and of the one that was there. */
export function restoreEvent(
  volume: string,
  { before, after }: { before: Superblock | undefined; after: Superblock },
  by: Actor,
): VolumeEvent {
  const [old, now] = [before === undefined ? undefined : newestDek(before), newestDek(after)];
  return {
    ...{ event: 'header-restore', volume, uuid: formatUuid(after.uuid), by },
    ...{ from: old?.keyUri ?? null, fromResolvedKeyId: old?.resolvedKeyId },
    ...(now === undefined ? {} : { to: now.keyUri, resolvedKeyId: now.resolvedKeyId }),
  };
}

function keyOf({ id, keyUri, resolvedKeyId }: DekRecord) {
  return { dekId: id, keyUri, resolvedKeyId };
}
