/**
 * The room of a superblock for the DEK of a rotation. Only one that rewrites lets go of DEKs, and it adds one first: its place is
 * left free by all others. Pure.
 */
import { DEKS_PER_VOLUME_MAX, SUPERBLOCK_BYTES_MAX } from '../base/limits.js';
import { encodeRecord } from './dek-record.js';
import { REWRAP_BYTES } from './inheritance.js';
import { type Superblock, superblockBytes } from './superblock.js';

/** Why a rotation can't end in `next`, whose last DEK is the new one; undefined where it can. */
export function whyNoRoom(next: Superblock, rewrites: boolean): string | undefined {
  const { deks } = next;
  const spare = rewrites ? 0 : 1;
  const spareBytes = spare * (encodeRecord(deks[deks.length - 1]).length + REWRAP_BYTES);
  const fits =
    deks.length + spare <= DEKS_PER_VOLUME_MAX && superblockBytes(next) + spareBytes <= SUPERBLOCK_BYTES_MAX;
  if (fits) return undefined;
  const full = `the volume has ${deks.length - 1} DEKs, and no place in its superblock for another`;
  return rewrites ? full : `${full} but that of a re-encryption, which lets go of the old`;
}
