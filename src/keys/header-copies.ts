/** The two copies of a superblock as they lie in the store: read, judged without a key, replaced in order. */
import { bytesEqual } from '../base/bytes.js';
import { messageOf, SealbdError } from '../base/errors.js';
import { KmsError } from '../kms/provider.js';
import type { Store } from '../store/store.js';
import { type DecodedSuperblock, decodeSuperblock } from './superblock.js';

export const SUPERBLOCK_NAMES = ['superblock', 'superblock.bak'] as const;
/** A superblock that is still to be proven. What a crash leaves of it counts for nothing. */
export const CANDIDATE_NAME = 'superblock.new';
type CopyName = (typeof SUPERBLOCK_NAMES)[number];

export interface HeaderCopy {
  readonly name: CopyName;
  readonly bytes: Buffer;
  readonly decoded: DecodedSuperblock;
}

export interface HeaderCopies {
  /** The ones that decode, highest generation first. */
  readonly copies: readonly HeaderCopy[];
  /** What is wrong with the others, one sentence each. */
  readonly problems: readonly string[];
}

export async function readHeaderCopies(store: Store): Promise<HeaderCopies> {
  const copies: HeaderCopy[] = [];
  const problems: string[] = [];
  for (const name of SUPERBLOCK_NAMES) {
    try {
      const bytes = await store.readSmall(name);
      if (bytes === undefined) {
        problems.push(`${name} is missing`);
        continue;
      }
      copies.push({ name, bytes, decoded: decodeSuperblock(bytes) });
    } catch (error) {
      problems.push(`${name}: ${messageOf(error)}`);
    }
  }
  copies.sort((a, b) => b.decoded.superblock.generation - a.decoded.superblock.generation);
  return { copies, problems };
}

/** A superblock that waits to be proven, or was left by a crash; undefined where there is none. INTEGRITY where it is none. */
export async function readCandidate(store: Store): Promise<DecodedSuperblock | undefined> {
  const bytes = await store.readSmall(CANDIDATE_NAME);
  return bytes === undefined ? undefined : decodeSuperblock(bytes);
}

/** The copy to show where no key is at hand. INTEGRITY where none decodes. */
export function newestCopy(found: HeaderCopies): HeaderCopy {
  const [newest] = found.copies;
  if (newest === undefined)
    throw new SealbdError('INTEGRITY', `no usable superblock: ${found.problems.join('; ')}`);
  return newest;
}

/**
 * The same error of a key service; where the copies name different keys, its message tells: one of them is out of date, or
 * forged, and the newer one was asked about, since an older one must not bring back a key that was replaced.
 */
export function explainDisagreement({ copies }: HeaderCopies, error: unknown): unknown {
  const keysOf = ({ decoded }: HeaderCopy): string => {
    const uris = decoded.superblock.deks.map((dek) => dek.keyUri);
    return uris.length === 0 ? 'no key' : [...new Set(uris)].join(' and ');
  };
  if (!(error instanceof KmsError) || new Set(copies.map(keysOf)).size < 2) return error;
  const claims = copies.map((copy) => {
    return `${copy.name}, of generation ${copy.decoded.superblock.generation}, names ${keysOf(copy)}`;
  });
  const problem = `the copies of the superblock disagree about the key: ${claims.join('; ')}`;
  return new KmsError(error.kind, `${error.message} (${problem})`, error);
}

/** Copy 2 is replaced only after copy 1 is durable. */
export async function writeHeaderCopies(store: Store, bytes: Uint8Array): Promise<void> {
  for (const name of SUPERBLOCK_NAMES) await store.replaceSmall(name, bytes);
}

export interface Replacement {
  /** Rejects where what was read back is not to be relied on; then nothing has changed. */
  prove(written: DecodedSuperblock): Promise<void>;
  /** Copy 1 is in place, and so the change holds. */
  committed(): void;
}

/**
 * Replaces both copies of a superblock on which data depends: the new one is made durable beside them, read back and
 * proven; then that very file takes the place of copy 1, and copy 2 follows.
 */
export async function replaceHeaderCopies(
  store: Store,
  bytes: Uint8Array,
  { prove, committed }: Replacement,
): Promise<void> {
  try {
    await store.replaceSmall(CANDIDATE_NAME, bytes);
    const written = await store.readSmall(CANDIDATE_NAME);
    if (written === undefined || !bytesEqual(written, bytes))
      throw new SealbdError('INTEGRITY', `${CANDIDATE_NAME} does not read back as it was written`);
    await prove(decodeSuperblock(written));
    await store.promoteSmall(CANDIDATE_NAME, 'superblock');
  } catch (error) {
    // Promoting may have failed after the rename. What can't be removed now is removed when the volume opens.
    if (await isInPlace(store, bytes)) committed();
    else await store.discardSmall(CANDIDATE_NAME).catch(() => undefined);
    throw error;
  }
  committed();
  await store.replaceSmall('superblock.bak', bytes);
}

async function isInPlace(store: Store, bytes: Uint8Array): Promise<boolean> {
  try {
    const present = await store.readSmall('superblock');
    return present !== undefined && bytesEqual(present, bytes);
  } catch {
    return false; // The error that led here is the one to tell.
  }
}

/** Removes what a crash left of a superblock that was never proven, or that was committed. True where there was one. */
export async function discardCandidate(store: Store): Promise<boolean> {
  if (!(await store.list()).includes(CANDIDATE_NAME)) return false;
  await store.discardSmall(CANDIDATE_NAME);
  return true;
}

/** Rewrites what is not the chosen copy already. Returns the names that were rewritten. */
export async function repairHeaderCopies(
  store: Store,
  found: HeaderCopies,
  chosen: HeaderCopy,
): Promise<string[]> {
  const rewritten: string[] = [];
  for (const name of SUPERBLOCK_NAMES) {
    const copy = found.copies.find((candidate) => candidate.name === name);
    if (copy !== undefined && bytesEqual(copy.bytes, chosen.bytes)) continue;
    await store.replaceSmall(name, chosen.bytes);
    rewritten.push(name);
  }
  return rewritten;
}
