/** What `volume info` and `key status` say about a volume. */
import type { KeyStatus, RotatedKey, SnapshotInfo, VolumeInfo } from '../admin/schemas.js';
import { suiteName } from '../base/ciphers.js';
import { BLOCK_BYTES } from '../base/limits.js';
import { formatUuid } from '../base/random.js';
import type { WatchTimes } from '../keys/key-watch.js';
import { type DekRecord, newestDek, type Superblock } from '../keys/superblock.js';
import type { EngineSnapshot } from './engine.js';
import type { ManagedVolume } from './managed-volume.js';
import type { Rotated } from './rotations.js';
import type { ClosedUsage } from './volume-files.js';

/** `usage` is what lies on the disk, for a volume that is not open. */
export function volumeView(volume: ManagedVolume, usage: ClosedUsage | undefined): VolumeInfo {
  const { superblock, device } = volume;
  const stats = device?.stats();
  return {
    name: volume.name,
    uuid: superblock === undefined ? null : formatUuid(superblock.uuid),
    sizeBytes: superblock?.sizeBytes ?? null,
    blockSize: BLOCK_BYTES,
    cipher: superblock === undefined ? null : suiteName(superblock.suite),
    state: volume.state,
    reason: volume.reason ?? (device === undefined ? null : (volume.keyCheck?.reason ?? null)),
    keyUri: superblock === undefined ? null : (newestDek(superblock)?.keyUri ?? null),
    mappedBytes: stats?.mappedBytes ?? usage?.mappedBytes ?? null,
    storedBytes: stats?.storedBytes ?? usage?.storedBytes ?? 0,
    segments: stats?.segments ?? usage?.segments ?? 0,
    snapshots: stats?.snapshots ?? null,
    snapshotBytes: stats?.snapshotBytes ?? null,
    clients: device?.clients ?? 0,
    createdAt: superblock === undefined ? null : new Date(superblock.createdAt).toISOString(),
  };
}

export function snapshotView(volume: string, snapshot: EngineSnapshot): SnapshotInfo {
  const { name, createdAtMs, sizeBytes, mappedBytes, uniqueBytes, problem, clients } = snapshot;
  return {
    ...{ volume, name, exportName: `${volume}@${name}` },
    createdAt: new Date(createdAtMs).toISOString(),
    ...{ sizeBytes, mappedBytes, uniqueBytes, clients },
    problem: problem ?? null,
  };
}

/**
 * Undefined for a volume without a key. `times` are the watchdog's, where it watches the key; `rewriting` says that a job
 * rewrites its data now.
 */
export function keyView(
  volume: ManagedVolume,
  times: WatchTimes | undefined,
  rewriting = false,
): KeyStatus | undefined {
  const { superblock, keyCheck } = volume;
  const active = superblock === undefined ? undefined : newestDek(superblock);
  if (superblock === undefined || active === undefined) return undefined;
  const byDek = volume.device?.segmentsByDek();
  return {
    volume: volume.name,
    keyUri: active.keyUri,
    resolvedKeyId: active.resolvedKeyId,
    state: keyCheck?.state ?? 'unreachable',
    reason: keyCheck === undefined ? 'not checked yet' : (keyCheck.reason ?? null),
    lastCheck: isoTime(keyCheck?.at),
    nextCheck: isoTime(times?.nextCheckAt),
    graceEndsAt: isoTime(times?.graceEndsAt),
    deks: superblock.deks.map((dek) => dekView(dek, byDek)),
    rotation: rotationView(superblock, volume.device, rewriting),
  };
}

/**
 * switching: to a new DEK. reencrypting, encrypting: what was there before. waiting: the same, to go on by itself when the
 * volume is open, or some time after a failure. paused: was cancelled, and plaintext is left.
 */
function rotationView(
  superblock: Superblock,
  device: ManagedVolume['device'],
  isAtWork: boolean,
): KeyStatus['rotation'] {
  const { rewriting, plain, deks } = superblock;
  const pending = deks.some((dek) => dek.state === 'pending');
  if (!pending && !rewriting && !plain) return null;
  const { doneBytes, totalBytes } = device?.rewritten() ?? { doneBytes: 0, totalBytes: 0 };
  if (pending) return { phase: 'switching', doneBytes, totalBytes };
  if (!rewriting) return { phase: 'paused', doneBytes, totalBytes };
  if (!isAtWork) return { phase: 'waiting', doneBytes, totalBytes };
  return { phase: plain ? 'encrypting' : 'reencrypting', doneBytes, totalBytes };
}

export function rotatedView(volume: string, { superblock, job }: Rotated): RotatedKey {
  const { id: dekId, keyUri, resolvedKeyId, exposed } = newestDek(superblock)!;
  return { volume, keyUri, resolvedKeyId, dekId, exposed, job: job ?? null };
}

function isoTime(unixMs: number | undefined): string | null {
  return unixMs === undefined ? null : new Date(unixMs).toISOString();
}

function dekView(
  dek: DekRecord,
  byDek: Map<number, { segments: number; bytes: number }> | undefined,
): KeyStatus['deks'][number] {
  const use = byDek === undefined ? null : (byDek.get(dek.id) ?? { segments: 0, bytes: 0 });
  return {
    id: dek.id,
    state: dek.state,
    exposed: dek.exposed,
    createdAt: new Date(dek.createdAt).toISOString(),
    wrappedBy: dek.keyVersion === '' ? dek.resolvedKeyId : `${dek.resolvedKeyId} version ${dek.keyVersion}`,
    segments: use?.segments ?? null,
    bytes: use?.bytes ?? null,
  };
}
