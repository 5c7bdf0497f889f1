/**
 * What a volume can take over from another one, restored or cloned: its superblock must hold the DEKs, wrapped anew, one of its
 * own, and where they come from. Who makes a backup, or a clone, asks before; who restores asks again. One place more is kept for
 * the DEK of a re-encryption, the way out of a superblock that is full (rotation-room.ts). Pure.
 */
import { DEKS_PER_VOLUME_MAX, ORIGINS_PER_VOLUME_MAX, SUPERBLOCK_BYTES_MAX } from '../base/limits.js';
import { type DekRecord, encodeRecord } from './dek-record.js';
import { descend, encodeOrigins, type Lineage } from './origins.js';

export interface InheritanceLimits {
  /** Of the new volume: those that it takes over, and one of its own. */
  readonly deksMax: number;
  readonly originsMax: number;
  /** Of its superblock. */
  readonly superblockBytesMax: number;
}

export const INHERITANCE_LIMITS: InheritanceLimits = {
  deksMax: DEKS_PER_VOLUME_MAX - 1,
  originsMax: ORIGINS_PER_VOLUME_MAX,
  superblockBytesMax: SUPERBLOCK_BYTES_MAX,
};

/**
 * Of one that is restored: how long its superblock gets is known when it is made, and a backup that is there is not refused for what
 * it might need, nor for what it can't do later.
 */
export const RESTORE_LIMITS: InheritanceLimits = {
  ...INHERITANCE_LIMITS,
  deksMax: DEKS_PER_VOLUME_MAX,
  superblockBytesMax: Number.POSITIVE_INFINITY,
};

/** Head, MACs and all else of a superblock but its DEKs and origins; the same of the manifest of a backup, a path in it. */
const FRAME_BYTES = 8192;
/** By which the wrap of a DEK, or the version of its key, may be longer when it is made anew. */
export const REWRAP_BYTES = 128;
/** An alias that leads elsewhere by now gives way to the key itself, as a URI: what that has before its name. */
const SCHEME_BYTES = 32;

/** Why a volume can't take over these DEKs, all but 0, from `from`; undefined where it can. `deks` are sorted by id. */
export function whyNotInherited(
  from: Lineage,
  deks: readonly DekRecord[],
  { deksMax, originsMax, superblockBytesMax }: InheritanceLimits = INHERITANCE_LIMITS,
): string | undefined {
  const newest = deks.at(-1);
  if (deks.length >= deksMax)
    return `it would need ${deks.length} DEKs, and one more of its own: a volume gets ${deksMax} at most`;
  const origins = descend(from, newest?.id ?? 0);
  if (origins.length > originsMax)
    return `it would descend from ${origins.length} volumes, one after the other: ${originsMax} is the most`;
  const records = newest === undefined ? [] : [...deks, newest, newest];
  const needed = records.reduce(
    (sum, dek) => sum + bytesOf(dek),
    FRAME_BYTES + encodeOrigins(origins).length,
  );
  if (needed <= superblockBytesMax) return undefined;
  const what = `its ${records.length} wrapped DEKs, one of its own and one of a re-encryption among them, may take ${needed} bytes of its superblock`;
  return `${what}: that has ${superblockBytesMax} at most`;
}

/** Of its record in the new superblock, at most. */
function bytesOf(dek: DekRecord): number {
  const named = Buffer.byteLength(dek.keyUri);
  const spelled = Buffer.byteLength(dek.resolvedKeyId) + SCHEME_BYTES;
  return encodeRecord(dek).length + REWRAP_BYTES + Math.max(0, spelled - named);
}
