/** One backup as it lies in its directory, and the chain of backups that it stands on. */
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { bytesEqual } from '../base/bytes.js';
import { errnoOf, isSealbdError, SealbdError } from '../base/errors.js';
import { BACKUP_INDEX_BYTES_MAX, BACKUPS_PER_CHAIN_MAX } from '../base/limits.js';
import { formatUuid } from '../base/random.js';
import type { Store, StoreFile } from '../store/store.js';
import { decodeIndex, type IndexEntry } from './index-codec.js';
import { type DecodedManifest, decodeManifest, type Manifest, sha256 } from './manifest.js';
import { damaged, INDEX, MANIFEST } from './names.js';

export class BackupDirectory {
  readonly store: Store;
  readonly decoded: DecodedManifest;
  #index: readonly IndexEntry[] | undefined;

  private constructor(store: Store, decoded: DecodedManifest) {
    this.store = store;
    this.decoded = decoded;
  }

  /** NOT_FOUND where there is no directory, INTEGRITY where it holds no whole backup. */
  static async open(store: Store): Promise<BackupDirectory> {
    const bytes = await readManifest(store);
    return new BackupDirectory(store, decodeManifest(bytes, join(store.path, MANIFEST)));
  }

  get path(): string {
    return this.store.path;
  }

  get manifest(): Manifest {
    return this.decoded.manifest;
  }

  /** The index, read once. INTEGRITY where it is not the one that the manifest names. */
  async index(): Promise<readonly IndexEntry[]> {
    this.#index ??= await this.#readIndex();
    return this.#index;
  }

  async #readIndex(): Promise<readonly IndexEntry[]> {
    const { index, segments, slots, nextIndex } = this.manifest;
    if (index.bytes > BACKUP_INDEX_BYTES_MAX) throw damaged(this.path, `an index of ${index.bytes} bytes`);
    const bytes = await this.#readWhole(INDEX, index.bytes);
    const what = join(this.path, INDEX);
    if (!bytesEqual(sha256(bytes), index.sha256)) throw damaged(what, 'wrong checksum');
    const entries = decodeIndex(bytes, what);
    const count = entries.reduce((sum, entry) => sum + entry.slots.count, 0);
    if (entries.length !== segments || count !== slots || (entries.at(-1)?.index ?? -1) >= nextIndex)
      throw damaged(what, 'it is not what the manifest says');
    return entries;
  }

  async #readWhole(name: string, sizeBytes: number): Promise<Uint8Array> {
    const file = await this.openFile(name);
    try {
      const found = await file.size();
      if (found !== sizeBytes) throw damaged(join(this.path, name), `${found} bytes instead of ${sizeBytes}`);
      const bytes = new Uint8Array(sizeBytes);
      if ((await file.read(bytes, 0)) !== sizeBytes) throw damaged(join(this.path, name), 'truncated');
      return bytes;
    } finally {
      await file.close();
    }
  }

  /** INTEGRITY where it is missing. */
  async openFile(name: string): Promise<StoreFile> {
    try {
      return await this.store.open(name, 'read');
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      throw damaged(join(this.path, name), 'missing', error);
    }
  }
}

async function readManifest(store: Store): Promise<Uint8Array> {
  let bytes: Uint8Array | undefined;
  try {
    bytes = await store.readSmall(MANIFEST);
  } catch (error) {
    if (errnoOf(error) !== 'ENOTDIR') throw error;
  }
  if (bytes !== undefined) return bytes;
  if (!(await isThere(store))) throw new SealbdError('NOT_FOUND', `${store.path}: no such backup`);
  throw damaged(store.path, 'it has no manifest: no backup, or one that was never finished');
}

/** Where it can't be listed something is there all the same. */
async function isThere(store: Store): Promise<boolean> {
  return store.list().then(
    () => true,
    (error: unknown) => errnoOf(error) !== 'ENOENT',
  );
}

/** The backups that one needs, oldest first, itself last; at most `most`. `storeAt` is what its directory is read through. */
export async function openChain(
  path: string,
  storeAt: (path: string) => Store,
  most = BACKUPS_PER_CHAIN_MAX,
): Promise<BackupDirectory[]> {
  const chain = [await BackupDirectory.open(storeAt(path))];
  while (chain[0].manifest.base !== undefined) {
    if (chain.length >= most) throw damaged(path, `a chain of more than ${most} backups`);
    chain.unshift(await findBase(chain[0], storeAt));
  }
  return chain;
}

/** Where the manifest says that it is, relative to the backup too, or beside it; its digest proves that it is the one. */
async function findBase(backup: BackupDirectory, storeAt: (path: string) => Store): Promise<BackupDirectory> {
  const base = backup.manifest.base!;
  for (const path of await candidates(backup.path, base.path, storeAt)) {
    try {
      const found = await BackupDirectory.open(storeAt(path));
      if (!bytesEqual(found.decoded.digest, base.digest)) continue;
      if (
        !bytesEqual(found.manifest.uuid, backup.manifest.uuid) ||
        found.manifest.sequence > backup.manifest.sequence
      )
        throw damaged(backup.path, `${path} is no base for it`);
      return found;
    } catch (error) {
      if (
        !isSealbdError(error, 'INTEGRITY') &&
        !isSealbdError(error, 'NOT_FOUND') &&
        errnoOf(error) === undefined
      )
        throw error;
    }
  }
  throw damaged(
    backup.path,
    `its base, backup ${formatUuid(base.backupUuid)}, is neither at ${JSON.stringify(base.path)} nor beside it, or is damaged`,
  );
}

async function candidates(path: string, hint: string, storeAt: (path: string) => Store): Promise<string[]> {
  const named = isAbsolute(hint) ? [hint] : [resolve(path, hint)];
  const parent = dirname(resolve(path));
  const siblings = (await storeAt(parent).list()).sort().map((name) => join(parent, name));
  return [...new Set([...named, ...siblings])].filter((candidate) => candidate !== resolve(path));
}
