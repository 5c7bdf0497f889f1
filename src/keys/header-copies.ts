/** The two copies of a superblock as they lie in the store: read, judged without a key, written in order. */
import { bytesEqual } from '../base/bytes.js';
import { messageOf, SealbdError } from '../base/errors.js';
import type { Store } from '../store/store.js';
import { type DecodedSuperblock, decodeSuperblock } from './superblock.js';

export const SUPERBLOCK_NAMES = ['superblock', 'superblock.bak'] as const;
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

/** The copy to show where no key is at hand. INTEGRITY where none decodes. */
export function newestCopy(found: HeaderCopies): HeaderCopy {
  const [newest] = found.copies;
  if (newest === undefined)
    throw new SealbdError('INTEGRITY', `no usable superblock: ${found.problems.join('; ')}`);
  return newest;
}

/** Copy 2 is replaced only after copy 1 is durable. */
export async function writeHeaderCopies(store: Store, bytes: Uint8Array): Promise<void> {
  for (const name of SUPERBLOCK_NAMES) await store.replaceSmall(name, bytes);
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
