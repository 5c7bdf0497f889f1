/**
 * What happened to a volume and its key, told by comparing it before and after an operation: so no operation can
 * forget to report. The events go to the audit log and to the hook, and hold nothing secret.
 */
import type { Caller } from '../admin/backend.js';
import { formatUuid } from '../base/random.js';
import { type DekRecord, newestDek, type Superblock } from '../keys/superblock.js';
import type { KeyState } from '../keys/watch-state.js';
import type { ManagedVolume } from './managed-volume.js';

/** Who asked. */
export type Actor = Caller | { readonly kind: 'watchdog' | 'startup' | 'shutdown' };
export const WATCHDOG: Actor = { kind: 'watchdog' };
export const STARTUP: Actor = { kind: 'startup' };
export const SHUTDOWN: Actor = { kind: 'shutdown' };

export interface VolumeEvent {
  readonly event: 'create' | 'wrap' | 'unwrap' | 'start' | 'stop' | 'delete' | 'key-state';
  readonly volume: string;
  readonly uuid: string | null;
  readonly by: Actor;
  /** Why it stopped, or what is wrong with the key. */
  readonly reason?: string | null;
  readonly from?: KeyState | null;
  readonly to?: KeyState;
  readonly dekId?: number;
  readonly keyUri?: string;
  readonly resolvedKeyId?: string;
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
    events.push({ event: 'start', ...base });
  }
  return events;
}

function keyOf({ id, keyUri, resolvedKeyId }: DekRecord) {
  return { dekId: id, keyUri, resolvedKeyId };
}
