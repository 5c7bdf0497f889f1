/** A directory that is to take a backup: made ready, finished, or cleared again (docs/FORMAT.md, "Backup"). */
import { errnoOf, messageOf, SealbdError } from '../base/errors.js';
import { addon } from '../native/addon.js';
import type { Store, StoreFile } from '../store/store.js';
import { createWhole } from '../store/whole-file.js';
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

/**
 * Marks a directory as an unfinished backup, durably, and removes what an earlier attempt left. The marker stays locked while
 * the file that is returned is open: CONFLICT where another backup is being made there, by whatever process.
 */
export async function claimDirectory(store: Store): Promise<StoreFile> {
  await assertClaimable(store);
  const marker = await openMarker(store);
  try {
    if (!addon.fileLock(marker.fd)) throw busy(store);
    // Whoever had it may have finished in between: the marker may be gone, or that of somebody who came after.
    await assertClaimable(store);
    if (!(await isPresentMarker(store, marker))) throw busy(store);
    await removeFiles(store);
    await marker.sync();
    await store.syncDirectory();
    return marker;
  } catch (error) {
    await marker.close();
    throw error;
  }
}

function busy({ path }: Store): SealbdError {
  return new SealbdError('CONFLICT', `another backup is being made in ${path}`);
}

async function openMarker(store: Store): Promise<StoreFile> {
  try {
    return await store.create(INCOMPLETE, 0);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST') throw error;
    return store.open(INCOMPLETE, 'write');
  }
}

/** A lock says something on the very file that has the name now. */
async function isPresentMarker(store: Store, marker: StoreFile): Promise<boolean> {
  let present: StoreFile;
  try {
    present = await store.open(INCOMPLETE, 'read');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
  try {
    const [one, other] = [await marker.identity(), await present.identity()];
    return one.dev === other.dev && one.ino === other.ino;
  } finally {
    await present.close();
  }
}

async function removeFiles(store: Store): Promise<void> {
  for (const name of await store.list()) if (isOwnName(name) && name !== INCOMPLETE) await store.remove(name);
}

/**
 * Removes an unfinished backup; the marker last, so that a crash leaves what the next attempt removes. Where the manifest is
 * seen to have its name, as after a rename that failed halfway, nothing is removed, and it resolves to false: it would be a manifest
 * of files that are gone.
 */
export async function clearDirectory(store: Store): Promise<boolean> {
  if ((await store.list()).includes(MANIFEST)) return false;
  await removeFiles(store);
  await store.syncDirectory();
  await store.remove(INCOMPLETE);
  await store.syncDirectory();
  return true;
}

/** Everything else is durable: from the rename on, this is a backup, and nothing of it may be removed. */
export async function nameManifest(store: Store, bytes: Uint8Array): Promise<void> {
  await store.syncDirectory();
  await createWhole(store, MANIFEST_TEMPORARY, (file) => file.write(bytes, 0));
  await store.rename(MANIFEST_TEMPORARY, MANIFEST);
}

/** Makes the name of the manifest durable, then the marker's removal. FAILED, and all files stay, where that can't be done. */
export async function finishDirectory(store: Store): Promise<void> {
  try {
    await store.syncDirectory();
    await store.remove(INCOMPLETE);
    await store.syncDirectory();
  } catch (error) {
    const unsure =
      'all of the backup is written, but a power failure may undo it: remove it and make another one';
    throw new SealbdError('FAILED', `${store.path}: ${unsure} (${messageOf(error)})`, { cause: error });
  }
}
