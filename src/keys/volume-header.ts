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
import { DekRing, withKeys } from './dek-ring.js';
import {
  discardCandidate,
  explainDisagreement,
  type HeaderCopies,
  readHeaderCopies,
  repairHeaderCopies,
  replaceHeaderCopies,
  writeHeaderCopies,
} from './header-copies.js';
import { assertAuthentic, type HeaderPins, unwrapHeader } from './header-unwrap.js';
import { ask } from './key-answer.js';
import { originsOf } from './origins.js';
import { whyNoRoom } from './rotation-room.js';
import { type DekRecord, encodeSuperblock, type Superblock } from './superblock.js';
import { assertSameKey, wrapNew } from './wrap-new.js';

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

export interface AddDekOptions {
  readonly providers: KeyProviders;
  readonly clock: Clock;
  readonly keyUri: string;
  /** The key that the URI named before: CONFLICT where it names another one now. */
  readonly resolvedKeyId?: string;
  /** What is under other DEKs is to be rewritten; noted in the same step, so that a crash does not forget it. */
  readonly rewrite: boolean;
  /** Of new segments, where it changes: the conversion of a `none` volume. */
  readonly suite?: Suite;
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
  #whole = true;

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
      if (suite !== SUITE_NONE) {
        const { providers, keyUri, clock } = options;
        await ask(clock, providers.open(keyUri).ensure());
      }
      for (const [id, handle] of ring.handles) {
        const wrapped = await wrapNew(options, uuid, id, handle);
        deks.push({ ...wrapped, state: 'active', createdAt });
      }
      const activeDek = suite === SUITE_NONE ? 0 : FIRST_DEK;
      const identity = { suite, activeDek, uuid, generation: 1, sizeBytes, createdAt };
      const superblock: Superblock = {
        ...identity,
        rewriting: false,
        plain: false,
        sizeInRoot: false,
        deks,
        origins: [],
      };
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
    let ofKey: number | undefined;
    for (const copy of found.copies) {
      // The newer copy may hold the only wrap of a DEK: the key service's "damaged" must not bring back what was before.
      if (ofKey !== undefined && copy.decoded.superblock.generation < ofKey) break;
      try {
        const ring = await unwrapHeader(copy.decoded, providers, pins);
        for (const failure of failures)
          log.error({ reason: failure.message }, 'passed over a superblock copy');
        return await VolumeHeader.#repaired(store, found, copy, ring, log);
      } catch (error) {
        if (!isSealbdError(error, 'INTEGRITY')) throw explainDisagreement(found, error);
        failures.push(error);
        if (error instanceof KmsError) ofKey = copy.decoded.superblock.generation;
      }
    }
    throw failureOf(found, failures);
  }

  /**
   * Serving goes on with one good copy: a repair that fails, as on a full disk, is reported and tried again at the next
   * open. Who opens the volume seals nothing under a pending DEK then (`whole`), whose wrap may lie in one copy only.
   */
  static async #repaired(
    store: Store,
    found: HeaderCopies,
    chosen: HeaderCopies['copies'][number],
    ring: DekRing,
    log: Logger,
  ): Promise<VolumeHeader> {
    const header = new VolumeHeader(store, chosen.decoded.superblock, ring);
    try {
      const rewritten = await repairHeaderCopies(store, found, chosen);
      if (rewritten.length > 0)
        log.warn({ rewritten, problems: found.problems }, 'repaired a superblock copy');
      if (await discardCandidate(store)) log.info({}, 'removed a superblock that a crash left unfinished');
    } catch (error) {
      header.#whole = false;
      log.error(
        { reason: messageOf(error) },
        'could not put the copies of the superblock in order; the volume may have one good copy only',
      );
    }
    return header;
  }

  /**
   * Puts a changed superblock in place, one generation up, once what lies on the disk has proven to be readable; `prove`
   * asks for more than its MAC. Where it throws after copy 1 was written, the change holds.
   */
  async update(
    change: Partial<Omit<Superblock, 'generation' | 'uuid'>>,
    prove: (written: Superblock) => Promise<void> = async () => undefined,
  ): Promise<void> {
    const next: Superblock = { ...this.#superblock, ...change, generation: this.#superblock.generation + 1 };
    await replaceHeaderCopies(this.#store, encode(next, this.#ring), {
      prove: async (written) => {
        assertAuthentic(written, this.#ring.handles);
        await prove(written.superblock);
      },
      committed: () => {
        this.#superblock = next;
        this.#whole = false;
      },
    });
    this.#whole = true;
  }

  /** False while the copies could not be made the same. */
  get whole(): boolean {
    return this.#whole;
  }

  /** The DEK of a rotation that is not over: new segments and roots may be under it. */
  get pending(): DekRecord | undefined {
    return this.#superblock.deks.find((dek) => dek.state === 'pending');
  }

  /**
   * Makes a DEK, proves its wrap and puts it into the superblock as pending. CONFLICT where one is pending already, or there is no room.
   * What throws leaves the header as it was, unless copy 1 was written: then it is pending.
   */
  async addPending(options: AddDekOptions): Promise<DekRecord> {
    const { deks, uuid, suite, plain, rewriting } = this.#superblock;
    if (this.pending !== undefined) throw new SealbdError('CONFLICT', `DEK ${this.pending.id} is pending`);
    const id = Math.max(FIRST_DEK - 1, ...deks.map((dek) => dek.id)) + 1;
    const handle = addon.keyGenerate();
    let added = false;
    try {
      const wrapped = await wrapNew(options, uuid, id, handle);
      assertSameKey(options, wrapped);
      const record: DekRecord = { ...wrapped, state: 'pending', createdAt: options.clock.now() };
      const changes = {
        deks: [...deks, record],
        rewriting: rewriting || options.rewrite,
        suite: options.suite ?? suite,
        plain: plain || suite === SUITE_NONE,
      };
      const full = whyNoRoom({ ...this.#superblock, ...changes }, options.rewrite);
      if (full !== undefined) throw new SealbdError('CONFLICT', full);
      added = true;
      this.#ring.add(id, handle);
      await this.update(changes);
      return record;
    } catch (error) {
      if (!added) addon.keyRelease(handle);
      else if (!this.#superblock.deks.some((dek) => dek.id === id)) this.#ring.drop(id);
      throw error;
    }
  }

  /** Both copies name the pending DEK when this resolves, and so does the wish to rewrite. */
  async confirmPending(rewrite: boolean): Promise<void> {
    await this.update({ rewriting: this.#superblock.rewriting || rewrite });
  }

  /** The pending DEK becomes the active one, which authenticates the superblock from now on; the active one retires. */
  async activatePending(): Promise<void> {
    const { pending } = this;
    if (pending === undefined) return;
    const deks = this.#superblock.deks.map((dek): DekRecord => {
      return { ...dek, state: dek.id === pending.id ? 'active' : 'retired' };
    });
    await this.update({ deks, activeDek: pending.id });
  }

  /**
   * Retired DEKs that nothing is under leave the superblock, then their slots are wiped. `inUse` are those that something
   * is still under; 0 stands for plaintext. Returns the ids that went. Where copy 2 could not be written it throws, and
   * that copy still has their wraps: another update, or the next open, puts it right.
   */
  async dropRetired(inUse: ReadonlySet<number>): Promise<number[]> {
    const { deks: before, rewriting, plain } = this.#superblock;
    const deks = before.filter((dek) => dek.state !== 'retired' || inUse.has(dek.id));
    const done = deks.every((dek) => dek.state !== 'retired') && !inUse.has(0);
    if (deks.length === before.length && !done && this.#whole) return [];
    const left = new Set([...deks.map((dek) => dek.id), ...(inUse.has(0) ? [0] : [])]);
    const origins = originsOf(this.#superblock.origins, left);
    try {
      await this.update({ deks, origins, rewriting: rewriting && !done, plain: plain && inUse.has(0) });
    } finally {
      for (const id of this.#ring.handles.keys())
        if (!this.#superblock.deks.some((dek) => dek.id === id)) this.#ring.drop(id);
    }
    return before.filter((dek) => !deks.includes(dek)).map((dek) => dek.id);
  }

  /** Wipes the DEKs. The header is of no further use. */
  revoke(): void {
    this.#ring.revoke();
  }
}

function encode(superblock: Superblock, ring: DekRing): Buffer {
  return withKeys(ring.handles, (keyOf) => encodeSuperblock(superblock, keyOf));
}

/** A wrong key is told apart from damaged bytes, whatever else failed. */
function failureOf(found: HeaderCopies, failures: readonly SealbdError[]): unknown {
  const ofKey = failures.find((failure) => failure instanceof KmsError);
  if (ofKey !== undefined) return explainDisagreement(found, ofKey);
  const reasons = [...failures.map((failure) => failure.message), ...found.problems];
  return new SealbdError('INTEGRITY', `no usable superblock: ${[...new Set(reasons)].join('; ')}`);
}
