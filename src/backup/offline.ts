/** What can be done with a backup where no daemon is: it is described, and verified. */
import { resolve } from 'node:path';
import { systemClock } from '../base/clock.js';
import { messageOf } from '../base/errors.js';
import { nullLogger } from '../base/log.js';
import { CipherPool } from '../cipher/cipher-pool.js';
import { KmsError } from '../kms/provider.js';
import { KeyProviders } from '../kms/registry.js';
import { addon } from '../native/addon.js';
import { FsStore } from '../store/fs-store.js';
import { openChain } from './backup-directory.js';
import { type ChainKeys, openChainKeys } from './chain-keys.js';
import { type BackupInfo, describeBackup } from './info.js';
import { whyUnproven } from './proof.js';
import { verifyBackup } from './verify.js';

const storeAt = (path: string): FsStore => FsStore.at(path);

export interface VerifyReport {
  readonly path: string;
  readonly checkedBlocks: number;
  /** Every block is, under keys that are not public. False: of some blocks, or of all, structure and checksums only. */
  readonly authenticated: boolean;
  /** Why it is not authenticated; null where it is. */
  readonly keyProblem: string | null;
  readonly problems: string[];
}

/** `dataDirectory` is where `local:` keys are. */
export function describeOffline(path: string, dataDirectory: string): Promise<BackupInfo> {
  return withProviders(dataDirectory, (providers) => describeBackup(resolve(path), storeAt, providers));
}

/** INTEGRITY where a manifest is damaged or does not authenticate; other damage is in the report. */
export function verifyOffline(
  path: string,
  dataDirectory: string,
  onProgress: (doneBytes: number, totalBytes: number) => void,
): Promise<VerifyReport> {
  return withProviders(dataDirectory, async (providers) => {
    const full = resolve(path);
    const chain = await openChain(full, storeAt);
    const { keys, problem, damage } = await openedKeys(chain, providers);
    const cipher = new CipherPool({ threads: 1 });
    try {
      const { signal } = new AbortController();
      const { slots, problems } = await verifyBackup({
        chain,
        keys: keys?.handles,
        cipher,
        signal,
        onProgress,
      });
      const keyProblem = problem ?? whyUnproven(chain);
      const report = { path: full, checkedBlocks: slots, authenticated: keyProblem === null, keyProblem };
      return { ...report, problems: [...damage, ...problems] };
    } finally {
      await cipher.destroy();
      keys?.release();
    }
  });
}

/** A key that can't be used leaves the checksums. One that can, and does not open a wrapped DEK, has found damage. */
async function openedKeys(
  chain: Awaited<ReturnType<typeof openChain>>,
  providers: KeyProviders,
): Promise<{ keys: ChainKeys | undefined; problem: string | null; damage: string[] }> {
  try {
    return { keys: await openChainKeys(chain, providers), problem: null, damage: [] };
  } catch (error) {
    if (!(error instanceof KmsError)) throw error;
    const problem = messageOf(error);
    return { keys: undefined, problem, damage: error.kind === 'damaged' ? [problem] : [] };
  }
}

async function withProviders<T>(
  dataDirectory: string,
  use: (providers: KeyProviders) => Promise<T>,
): Promise<T> {
  const random = {
    fill<B extends Uint8Array>(bytes: B): B {
      addon.randomFill(bytes);
      return bytes;
    },
  };
  const providers = new KeyProviders({ dataDirectory, clock: systemClock, random, log: nullLogger });
  try {
    return await use(providers);
  } finally {
    providers.close();
  }
}
