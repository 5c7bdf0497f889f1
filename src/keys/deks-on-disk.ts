/** Which DEKs the files of a volume name, told without a key. Nothing of it is proven: good for being careful, and no more. */
import type { Store } from '../store/store.js';

/** Roots, segments and map files name their DEK at the same place (docs/FORMAT.md). */
const NAMES = /^(checkpoint(\.bak)?|(seg|map)-[0-9a-f]{16})$/;
const MAGICS = ['SBDCKP1\n', 'SBDSEG1\n', 'SBDMAP1\n'];
const DEK_ID_AT = 12;
const HEAD_BYTES = 16;

/** Ids of DEKs; 0 is the public key of `none`. */
export async function deksOnDisk(store: Store): Promise<Set<number>> {
  const ids = new Set<number>();
  for (const name of await store.list()) {
    if (!NAMES.test(name)) continue;
    const head = Buffer.alloc(HEAD_BYTES);
    const file = await store.open(name, 'read');
    try {
      await file.read(head, 0);
    } finally {
      await file.close();
    }
    if (MAGICS.includes(head.toString('latin1', 0, 8))) ids.add(head.readUInt32LE(DEK_ID_AT));
  }
  return ids;
}
