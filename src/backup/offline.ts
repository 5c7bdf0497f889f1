/** What can be done with a backup where no daemon is: it is described, and verified. */
import { resolve } from 'node:path';
import { systemClock } from '../base/clock.js';
import { messageOf } from '../base/errors.js';
import { nullLogger } from '../base/log.js';
import { CipherPool } from '../cipher/cipher-pool.js';
import { type HeldKeys, type JobControl, JobKeys } from '../keys/job-keys.js';
import { systemRandom as random } from '../keys/random.js';
import { DEFAULT_WATCH, type WatchPolicy } from '../keys/watch-state.js';
import { Watchdog } from '../keys/watchdog.js';
import { KmsError } from '../kms/provider.js';
import { KeyProviders } from '../kms/registry.js';
import { FsStore } from '../store/fs-store.js';
import type { Store } from '../store/store.js';
import { openChain } from './backup-directory.js';
import { type ChainKeys, chainDeks, openChainKeys } from './chain-keys.js';
import { type BackupInfo, describeBackup } from './info.js';
import { whyUnproven } from './proof.js';
import { verifyBackup } from './verify.js';

const storeAt = (path: string): Store => FsStore.at(path);

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

/** What tests set. */
export interface VerifyOfflineOptions {
  readonly watch?: WatchPolicy;
  readonly storeAt?: (path: string) => Store;
}

/**
 * INTEGRITY where a manifest is damaged or does not authenticate; other damage is in the report. Its keys are watched as the
 * daemon's are: KEY_UNAVAILABLE, and they are wiped, where they are taken away meanwhile.
 */
export function verifyOffline(
  path: string,
  dataDirectory: string,
  onProgress: JobControl['onProgress'],
  { watch = DEFAULT_WATCH, storeAt: open = storeAt }: VerifyOfflineOptions = {},
): Promise<VerifyReport> {
  return withProviders(dataDirectory, async (providers) => {
    const full = resolve(path);
    const chain = await openChain(full, open);
    const { keys, problem, damage } = await openedKeys(chain, providers);
    const cipher = new CipherPool({ threads: 1 });
    try {
      const control = { signal: new AbortController().signal, onProgress };
      const verified = (guarded: JobControl) => {
        return verifyBackup({ chain, keys: keys?.handles, cipher, ...guarded });
      };
      const held = keys && { ...keys, deks: chainDeks(chain), uuid: chain[chain.length - 1].manifest.uuid };
      const { slots, problems } =
        held === undefined
          ? await verified(control)
          : await watched(`verify ${full}`, held, { providers, policy: watch }, control, verified);
      const keyProblem = problem ?? whyUnproven(chain);
      const report = { path: full, checkedBlocks: slots, authenticated: keyProblem === null, keyProblem };
      return { ...report, problems: [...damage, ...problems] };
    } finally {
      await cipher.destroy();
      keys?.release();
    }
  });
}

/** Settles as `work` does; KEY_UNAVAILABLE once the keys were taken away. They are wiped in the end. */
async function watched<T>(
  what: `${string} ${string}`,
  held: HeldKeys,
  { providers, policy }: { readonly providers: KeyProviders; readonly policy: WatchPolicy },
  control: JobControl,
  work: (control: JobControl) => Promise<T>,
): Promise<T> {
  const common = { clock: systemClock, log: nullLogger };
  const watchdog = new Watchdog({ ...common, policy, random });
  try {
    return await new JobKeys({ ...common, watchdog, providers }).during(
      what,
      control,
      held,
      async (guarded) => {
        const result = await work(guarded);
        guarded.signal.throwIfAborted(); // Its keys are wiped: what did not authenticate any more is not damaged.
        return result;
      },
    );
  } finally {
    watchdog.close();
  }
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
  const providers = new KeyProviders({ dataDirectory, clock: systemClock, random, log: nullLogger });
  try {
    return await use(providers);
  } finally {
    providers.close();
  }
}
