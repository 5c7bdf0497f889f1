/**
 * The superblock of an open volume and the DEKs that it holds wrapped: create, open, update, revoke. One writer;
 * the caller keeps operations on one volume apart.
 */
import type { Suite } from '../base/ciphers.js';
import type { Clock } from '../base/clock.js';
import { isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import { type RandomSource, randomUuid } from '../base/random.js';
import { KmsError } from '../kms/provider.js';
import type { KeyProviders } from '../kms/registry.js';
import { addon, type KeyHandle, SUITE_NONE } from '../native/addon.js';
import type { Store } from '../store/store.js';
import { DekRing, withPublicKey } from './dek-ring.js';
import {
  type HeaderCopies,
  readHeaderCopies,
  repairHeaderCopies,
  writeHeaderCopies,
} from './header-copies.js';
import { type HeaderPins, unwrapHeader } from './header-unwrap.js';
import { checkValueOf, type DekRecord, encodeSuperblock, type Superblock } from './superblock.js';

const FIRST_DEK = 1;

export interface CreateHeaderOptions {
  readonly store: Store;
  readonly providers: KeyProviders;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly sizeBytes: number;
  readonly suite: Suite;
  /** Ignored by the `none` suite. */
  readonly keyUri: string;
}

export interface OpenHeaderOptions {
  readonly store: Store;
  readonly providers: KeyProviders;
  readonly pins: HeaderPins;
  readonly log: Logger;
}

export class VolumeHeader {
  readonly #store: Store;
  readonly #ring: DekRing;
  #superblock: Superblock;

  private constructor(store: Store, superblock: Superblock, ring: DekRing) {
    this.#store = store;
    this.#superblock = superblock;
    this.#ring = ring;
  }

  get superblock(): Superblock {
    return this.#superblock;
  }

  get deks(): ReadonlyMap<number, KeyHandle> {
    return this.#ring.handles;
  }

  /** Makes the first DEK and writes both copies. On failure no slot is left behind. */
  static async create(options: CreateHeaderOptions): Promise<VolumeHeader> {
    const { store, suite, sizeBytes } = options;
    const uuid = randomUuid(options.random);
    const createdAt = options.clock.now();
    const ring = new DekRing(suite === SUITE_NONE ? new Map() : new Map([[FIRST_DEK, addon.keyGenerate()]]));
    try {
      const deks: DekRecord[] = [];
      for (const [id, handle] of ring.handles) deks.push(await wrapNew(options, uuid, id, handle, createdAt));
      const activeDek = suite === SUITE_NONE ? 0 : FIRST_DEK;
      const superblock: Superblock = { suite, activeDek, uuid, generation: 1, sizeBytes, createdAt, deks };
      await writeHeaderCopies(store, encode(superblock, ring));
      return new VolumeHeader(store, superblock, ring);
    } catch (error) {
      ring.revoke();
      throw error;
    }
  }

  /**
   * Takes the copy with the highest generation that authenticates, and rewrites the other. A copy whose key is
   * refused or unreachable ends the search: an older copy must not bring back a key that was replaced.
   */
  static async open(options: OpenHeaderOptions): Promise<VolumeHeader> {
    const { store, providers, pins, log } = options;
    const found = await readHeaderCopies(store);
    const failures: SealbdError[] = [];
    for (const copy of found.copies) {
      try {
        const ring = await unwrapHeader(copy.decoded, providers, pins);
        for (const failure of failures)
          log.error({ reason: failure.message }, 'passed over a superblock copy');
        await repair(store, found, copy, log);
        return new VolumeHeader(store, copy.decoded.superblock, ring);
      } catch (error) {
        if (!isSealbdError(error, 'INTEGRITY')) throw error;
        failures.push(error);
      }
    }
    throw failureOf(found, failures);
  }

  /** Writes a changed superblock, one generation up. Where it throws after copy 1 was written, the change holds. */
  async update(change: Partial<Omit<Superblock, 'generation' | 'uuid'>>): Promise<void> {
    const next: Superblock = { ...this.#superblock, ...change, generation: this.#superblock.generation + 1 };
    const bytes = encode(next, this.#ring);
    await this.#store.replaceSmall('superblock', bytes);
    this.#superblock = next;
    await this.#store.replaceSmall('superblock.bak', bytes);
  }

  /** Wipes the DEKs. The header is of no further use. */
  revoke(): void {
    this.#ring.revoke();
  }
}

async function wrapNew(
  options: CreateHeaderOptions,
  uuid: Uint8Array,
  id: number,
  handle: KeyHandle,
  createdAt: number,
): Promise<DekRecord> {
  const { providers, keyUri } = options;
  const provider = providers.open(keyUri);
  const exposed = providers.exposes(keyUri);
  const context = { volumeUuid: uuid, dekId: id, exposed };
  await provider.ensure();
  const wrapped = await provider.wrap(handle, context);
  // Nothing may depend on a copy that was never opened.
  await provider.check(wrapped, context, handle);
  const { blob, resolvedKeyId, keyVersion } = wrapped;
  const checkValue = checkValueOf(handle, uuid, id);
  return {
    id,
    state: 'active',
    exposed,
    createdAt,
    checkValue,
    keyUri,
    resolvedKeyId,
    keyVersion,
    wrapped: blob,
  };
}

function encode(superblock: Superblock, ring: DekRing): Buffer {
  if (superblock.suite === SUITE_NONE) return withPublicKey((key) => encodeSuperblock(superblock, key));
  return encodeSuperblock(superblock, ring.handles.get(superblock.activeDek)!);
}

/** Serving goes on with one good copy: a repair that fails is reported, and tried again at the next open. */
async function repair(
  store: Store,
  found: HeaderCopies,
  chosen: HeaderCopies['copies'][number],
  log: Logger,
): Promise<void> {
  try {
    const rewritten = await repairHeaderCopies(store, found, chosen);
    if (rewritten.length > 0) log.warn({ rewritten, problems: found.problems }, 'repaired a superblock copy');
  } catch (error) {
    log.error(
      { reason: messageOf(error) },
      'could not repair a superblock copy; the volume has one good copy only',
    );
  }
}

/** A wrong key is told apart from damaged bytes, whatever else failed. */
function failureOf(found: HeaderCopies, failures: readonly SealbdError[]): SealbdError {
  const ofKey = failures.find((failure) => failure instanceof KmsError);
  if (ofKey !== undefined) return ofKey;
  const reasons = [...failures.map((failure) => failure.message), ...found.problems];
  return new SealbdError('INTEGRITY', `no usable superblock: ${[...new Set(reasons)].join('; ')}`);
}
