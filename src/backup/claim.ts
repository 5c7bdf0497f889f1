/** A directory that is to take a backup: made ready, finished, or cleared again (docs/FORMAT.md, "Backup"). */
import { errnoOf, SealbdError } from '../base/errors.js';
import type { Store } from '../store/store.js';
import { INCOMPLETE, isOwnName, MANIFEST, MANIFEST_TEMPORARY } from './names.js';

/** CONFLICT where the directory holds anything but an unfinished backup. One that does not exist is fine. */
export async function assertClaimable(store: Store): Promise<void> {
  const names = await namesIn(store);
  if (names.includes(MANIFEST)) throw new SealbdError('CONFLICT', `${store.path} holds a backup already`);
  const foreign = names.find((name) => !isOwnName(name));
  if (foreign === undefined && (names.length === 0 || names.includes(INCOMPLETE))) return;
  throw new SealbdError(
    'CONFLICT',
    `${store.path} is not empty, and what is there is no unfinished backup: ${foreign ?? names[0]}`,
  );
}

async function namesIn(store: Store): Promise<string[]> {
  try {
    return await store.list();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw error;
  }
}

/** Marks a directory as an unfinished backup, durably, and removes what an earlier attempt left. */
export async function claimDirectory(store: Store): Promise<void> {
  await assertClaimable(store);
  await clearDirectory(store);
  const marker = await store.create(INCOMPLETE, 0);
  await marker.sync();
  await marker.close();
  await store.syncDirectory();
}

/** Removes an unfinished backup; the marker last, so that a crash leaves what the next attempt removes. */
export async function clearDirectory(store: Store): Promise<void> {
  const names = await store.list();
  for (const name of names) if (isOwnName(name) && name !== INCOMPLETE) await store.remove(name);
  await store.syncDirectory();
  await store.remove(INCOMPLETE);
  await store.syncDirectory();
}

/** Everything else is durable: from the rename on, this is a backup. */
export async function publishManifest(store: Store, bytes: Uint8Array): Promise<void> {
  await store.syncDirectory();
  const file = await store.create(MANIFEST_TEMPORARY, 0);
  try {
    await file.write(bytes, 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await store.rename(MANIFEST_TEMPORARY, MANIFEST);
  await store.syncDirectory();
  await store.remove(INCOMPLETE);
  await store.syncDirectory();
}
