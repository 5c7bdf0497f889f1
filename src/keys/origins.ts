/**
 * Where the older DEKs of a restored or cloned volume come from (docs/FORMAT.md, "Superblock"). The uuid of that volume
 * and the number of a DEK name one key, whichever volume holds it. Pure.
 */
import { type ByteReader, ByteWriter, bytesEqual } from '../base/bytes.js';
import { ORIGINS_PER_VOLUME_MAX } from '../base/limits.js';

export const UUID_BYTES = 16;
const ENTRY_BYTES = UUID_BYTES + 4;

export interface Origin {
  readonly uuid: Uint8Array;
  /** DEKs up to this one are its own, down to the last one of the origin before. DEK 0 is the first origin's. */
  readonly lastDek: number;
}

/** What knows of DEKs and origins: a superblock, or the manifest of a backup. */
export interface Lineage {
  readonly uuid: Uint8Array;
  readonly origins: readonly Origin[];
}

/** Nothing at all where there are none: a superblock without origins is of version 1. */
export function encodeOrigins(origins: readonly Origin[]): Uint8Array {
  if (origins.length === 0) return new Uint8Array(0);
  const writer = new ByteWriter(4 + ENTRY_BYTES * origins.length).u32(origins.length);
  for (const { uuid, lastDek } of origins) writer.bytes(uuid).u32(lastDek);
  return writer.written();
}

export function decodeOrigins(reader: ByteReader): Origin[] {
  const count = reader.u32();
  if (count < 1 || count > ORIGINS_PER_VOLUME_MAX) throw reader.error(`${count} origins`);
  return Array.from({ length: count }, () => ({
    uuid: Uint8Array.from(reader.bytes(UUID_BYTES)),
    lastDek: reader.u32(),
  }));
}

/** What is wrong with a list of origins, in words. */
export function originProblem(origins: readonly Origin[]): string | undefined {
  if (origins.length > ORIGINS_PER_VOLUME_MAX) return `${origins.length} origins`;
  if (origins.some(({ uuid }) => uuid.length !== UUID_BYTES)) return 'a uuid has 16 bytes';
  if (origins.some(({ lastDek }, i) => i > 0 && lastDek <= origins[i - 1].lastDek))
    return 'the DEKs of origins must grow';
  return undefined;
}

/** The uuid of the volume that made a DEK; of 0, of the one that wrote the oldest plaintext. */
export function originOf({ uuid, origins }: Lineage, dekId: number): Uint8Array {
  return origins.find(({ lastDek }) => dekId <= lastDek)?.uuid ?? uuid;
}

/** The origins of a volume that takes over DEKs up to `lastDek` from another one. */
export function descend({ uuid, origins }: Lineage, lastDek: number): Origin[] {
  const last = origins.at(-1);
  // Every DEK of it was its origin's: it wrote nothing, or nothing that is left.
  const inherited = last !== undefined && last.lastDek >= lastDek;
  return inherited ? [...origins] : [...origins, { uuid: uuid.slice(), lastDek }];
}

/** Those that have a DEK among these ids yet; 0 stands for plaintext. */
export function originsOf(origins: readonly Origin[], ids: ReadonlySet<number>): Origin[] {
  return origins.filter(({ lastDek }, i) => {
    const after = i === 0 ? -1 : origins[i - 1].lastDek;
    return [...ids].some((id) => id > after && id <= lastDek);
  });
}

export function sameOrigins(one: readonly Origin[], other: readonly Origin[]): boolean {
  return (
    one.length === other.length &&
    one.every(({ uuid, lastDek }, i) => lastDek === other[i].lastDek && bytesEqual(uuid, other[i].uuid))
  );
}
