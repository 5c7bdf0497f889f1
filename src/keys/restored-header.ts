/**
 * The superblock of a volume that takes over another one's DEKs: restored from a backup, or cloned (docs/FORMAT.md,
 * "Restoring, cloning"). They are wrapped anew for its own uuid, by the keys that wrap them now, and retired; what it writes is
 * under a new DEK, which no other volume has.
 */
import type { Suite } from '../base/ciphers.js';
import type { Clock } from '../base/clock.js';
import { SealbdError } from '../base/errors.js';
import { forEachLimited } from '../base/limited.js';
import { DEKS_ASKED_AT_ONCE } from '../base/limits.js';
import { type RandomSource, randomUuid } from '../base/random.js';
import { KmsError } from '../kms/provider.js';
import type { KeyProviders } from '../kms/registry.js';
import { addon, type KeyHandle, SUITE_NONE } from '../native/addon.js';
import type { Store } from '../store/store.js';
import { DekRing, withKeys } from './dek-ring.js';
import { writeHeaderCopies } from './header-copies.js';
import { openRecorded } from './header-unwrap.js';
import { RESTORE_LIMITS, whyNotInherited } from './inheritance.js';
import { ask } from './key-answer.js';
import { descend, type Lineage } from './origins.js';
import { checkValueOf, type DekRecord, encodeSuperblock, type Superblock } from './superblock.js';
import { assertSameKey, wrapNew } from './wrap-new.js';

export interface RestoredHeaderOptions {
  readonly store: Store;
  readonly providers: KeyProviders;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly sizeBytes: number;
  readonly suite: Suite;
  /** Some segments may be in plaintext: they are rewritten once the volume is open. */
  readonly plain: boolean;
  /** Whose DEKs they are. */
  readonly from: Lineage;
  readonly deks: readonly DekRecord[];
  readonly handles: ReadonlyMap<number, KeyHandle>;
}

export interface RestoredHeader {
  readonly superblock: Superblock;
  /** The new DEK alone; the public key in `none`. */
  readonly key: KeyHandle;
  /** Wipes it. */
  release(): void;
}

/** CONFLICT where a superblock can't hold it all, or a URI names another key than the one that wraps a DEK now; KmsError where a key can't be used. */
export async function writeRestoredHeader(options: RestoredHeaderOptions): Promise<RestoredHeader> {
  const { store, suite, sizeBytes, clock, from, deks } = options;
  const problem = whyNotInherited(from, deks, RESTORE_LIMITS);
  if (problem !== undefined)
    throw new SealbdError('CONFLICT', `the volume can not be made, since ${problem}`);
  const uuid = randomUuid(options.random);
  const createdAt = clock.now();
  const lastDek = Math.max(0, ...deks.map((dek) => dek.id));
  const id = suite === SUITE_NONE ? 0 : lastDek + 1;
  const key = suite === SUITE_NONE ? addon.keyImport(new Uint8Array(32)) : addon.keyGenerate();
  const ring = new DekRing(new Map([[id, key]]));
  try {
    const records = await rewrapAll(options, uuid);
    const newest = records.at(-1);
    if (newest !== undefined) records.push(await newDek(options, newest, uuid, id, key, createdAt));
    const superblock: Superblock = {
      ...{ suite, activeDek: id, uuid, generation: 1, sizeBytes, createdAt, deks: records },
      ...{
        plain: options.plain,
        rewriting: options.plain,
        sizeInRoot: false,
        origins: descend(from, lastDek),
      },
    };
    await writeHeaderCopies(
      store,
      withKeys(ring.handles, (keyOf) => encodeSuperblock(superblock, keyOf)),
    );
    return { superblock, key, release: () => ring.revoke() };
  } catch (error) {
    ring.revoke();
    throw error;
  }
}

/** Under the key that wraps the newest of the old ones, by the same URI. */
async function newDek(
  options: RestoredHeaderOptions,
  newest: DekRecord,
  uuid: Uint8Array,
  id: number,
  key: KeyHandle,
  createdAt: number,
): Promise<DekRecord> {
  const { keyUri, resolvedKeyId } = newest;
  const wrapped = await wrapNew({ ...options, keyUri }, uuid, id, key);
  assertSameKey({ keyUri, resolvedKeyId }, wrapped);
  return { ...wrapped, state: 'active', createdAt };
}

async function rewrapAll(options: RestoredHeaderOptions, uuid: Uint8Array): Promise<DekRecord[]> {
  const records = new Map<number, DekRecord>();
  await forEachLimited(options.deks, DEKS_ASKED_AT_ONCE, async (dek) => {
    records.set(dek.id, await rewrapped(dek, options, uuid));
  });
  return [...records.values()].sort((a, b) => a.id - b.id);
}

/**
 * The service rewraps it where it can without giving the DEK out; the new wrap is opened, and compared, before it counts. An
 * alias that leads elsewhere by now is not followed: what it meant is named in its place.
 */
async function rewrapped(
  dek: DekRecord,
  options: RestoredHeaderOptions,
  uuid: Uint8Array,
): Promise<DekRecord> {
  const { providers, clock, from, handles } = options;
  const { id, exposed, keyUri, resolvedKeyId, keyVersion, wrapped: blob } = dek;
  const handle = handles.get(id)!;
  const fromContext = { volumeUuid: from.uuid, dekId: id, exposed };
  const context = { ...fromContext, volumeUuid: uuid };
  const old = { blob, resolvedKeyId, keyVersion };
  const source = openRecorded(providers, keyUri);
  const spelled = providers.spelledOut(keyUri, resolvedKeyId);
  for (const uri of keyUri === spelled ? [keyUri] : [keyUri, spelled]) {
    const provider = openRecorded(providers, uri);
    const fresh = await ask(clock, provider.rewrap(old, source, fromContext, context)).catch(
      (error: unknown) => {
        // The key that the alias leads to now may not be ours to use.
        if (uri === spelled || !(error instanceof KmsError)) throw error;
        return undefined;
      },
    );
    if (uri !== spelled && fresh?.resolvedKeyId !== resolvedKeyId) continue;
    if (fresh === undefined) break;
    assertSameKey({ keyUri, resolvedKeyId }, fresh);
    await ask(clock, provider.check(fresh, context, handle));
    const checkValue = checkValueOf(handle, uuid, id);
    return {
      ...dek,
      state: 'retired',
      checkValue,
      keyUri: uri,
      wrapped: fresh.blob,
      keyVersion: fresh.keyVersion,
    };
  }
  throw new Error('one of them is the last');
}
