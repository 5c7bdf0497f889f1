/** Backups of a real volume, without a daemon: made, verified, restored, in directories of their own. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { openChain } from '../../src/backup/backup-directory.js';
import { chainDeks, openChainKeys } from '../../src/backup/chain-keys.js';
import type { ChainLimits } from '../../src/backup/chain-limits.js';
import { createBackup } from '../../src/backup/create.js';
import type { Manifest } from '../../src/backup/manifest.js';
import { type RestoredBlocks, restoreChain } from '../../src/backup/restore.js';
import { type VerifiedBackup, verifyBackup } from '../../src/backup/verify.js';
import { systemClock } from '../../src/base/clock.js';
import type { CipherPool } from '../../src/cipher/cipher-pool.js';
import { lendKeys } from '../../src/keys/dek-ring.js';
import { systemRandom } from '../../src/keys/random.js';
import { writeRestoredHeader } from '../../src/keys/restored-header.js';
import { newestDek } from '../../src/keys/superblock.js';
import { FsStore } from '../../src/store/fs-store.js';
import type { Store } from '../../src/store/store.js';
import { keyProviders } from './key-fixtures.js';
import type { SealedVolume } from './sealed-volume.js';

const never = new AbortController().signal;
const silent = { signal: never, onProgress: () => undefined };
export const storeAt = (path: string): Store => FsStore.at(path);

export interface BackupScene {
  readonly dataDirectory: string;
  readonly cipher: CipherPool;
}

export interface MakeOptions {
  readonly base?: string;
  readonly salvage?: boolean;
  readonly to?: Store;
  readonly signal?: AbortSignal;
  readonly limits?: ChainLimits;
}

export async function makeBackup(
  scene: BackupScene,
  { header, volume }: SealedVolume,
  from: Store,
  path: string,
  { base, salvage = false, to, signal = never, limits }: MakeOptions = {},
): Promise<Manifest> {
  const chain = base === undefined ? undefined : await openChain(base, storeAt);
  const keys = chain && (await openChainKeys(chain, keyProviders(scene.dataDirectory)));
  const { suite, plain } = header.superblock;
  const lent = lendKeys(header.deks, plain || suite === 0);
  const source = await volume.pin();
  try {
    const { manifest } = await createBackup({
      ...{ source, from, salvage, signal, cipher: scene.cipher, random: systemRandom },
      ...(limits && { limits }),
      to: to ?? (await FsStore.open(path, { create: true })),
      base: chain && keys && { chain, keys: keys.handles, path: base! },
      keys: lent.handles,
      facts: async () => {
        const { superblock } = header;
        return { ...superblock, name: 'v', dekId: newestDek(superblock)?.id ?? 0 };
      },
      now: () => performance.now(),
      onProgress: () => undefined,
      pace: async () => undefined,
    });
    return manifest;
  } finally {
    keys?.release();
    lent.release();
    await source.release();
  }
}

export async function verify(scene: BackupScene, path: string, withKeys = true): Promise<VerifiedBackup> {
  const chain = await openChain(path, storeAt);
  const keys = withKeys ? await openChainKeys(chain, keyProviders(scene.dataDirectory)) : undefined;
  try {
    return await verifyBackup({ ...silent, chain, keys: keys?.handles, cipher: scene.cipher });
  } finally {
    keys?.release();
  }
}

/** Makes the files of a volume in `DIR/volumes/NAME`. */
export async function restoreTo(
  scene: BackupScene,
  path: string,
  name: string,
  { salvage = false, store: given }: { salvage?: boolean; store?: Store } = {},
): Promise<RestoredBlocks & { readonly path: string; readonly uuid: Uint8Array }> {
  const target = join(scene.dataDirectory, 'volumes', name);
  mkdirSync(target, { recursive: true });
  const store = given ?? (await FsStore.open(target));
  const providers = keyProviders(scene.dataDirectory);
  const chain = await openChain(path, storeAt);
  const keys = await openChainKeys(chain, providers);
  try {
    const { manifest } = chain[chain.length - 1];
    const header = await writeRestoredHeader({
      ...{ store, providers, clock: systemClock, random: systemRandom, handles: keys.handles },
      ...{ sizeBytes: manifest.sizeBytes, suite: manifest.suite, plain: manifest.plain },
      ...{ from: manifest, deks: chainDeks(chain) },
    });
    try {
      const { uuid, activeDek: dekId } = header.superblock;
      const identity = { store, uuid, dekId, key: header.key };
      const restored = await restoreChain({
        ...silent,
        ...{ chain, keys: keys.handles, ...identity, cipher: scene.cipher, salvage },
      });
      return { ...restored, path: target, uuid };
    } finally {
      header.release();
    }
  } finally {
    keys.release();
  }
}
