/** The DEKs of one volume as its engine knows them: which one seals what is new, and which ones may have. */
import { SealbdError } from '../base/errors.js';
import { addon, type KeyHandle } from '../native/addon.js';
import type { SuiteId } from '../segment/format.js';

/** What new segments, map files and roots are sealed with. */
export interface SealingKey {
  readonly id: number;
  readonly suite: SuiteId;
  readonly key: KeyHandle;
}

export interface VolumeKeysOptions {
  /** Of new segments. */
  readonly suite: SuiteId;
  /** Unwrapped DEKs by id. Empty for `none`. */
  readonly deks: ReadonlyMap<number, KeyHandle>;
  /** 0: the public key of `none`. */
  readonly activeDek: number;
  /** The DEK of a rotation that is not over: something may be under it. */
  readonly pendingDek?: number | undefined;
  /** What is new is sealed with the pending DEK, not with the active one. */
  readonly sealPending?: boolean | undefined;
  /** Some segments may be in plaintext still, under the public key. */
  readonly plain?: boolean | undefined;
}

const PUBLIC_KEY_BYTES = 32;
const PUBLIC_DEK = 0;

export class VolumeKeys {
  readonly #handles: Map<number, KeyHandle>;
  #publicKey: KeyHandle | undefined;
  /** DEKs under which roots and the tail of the log count. */
  #trusted: readonly number[];
  #sealing: SealingKey;
  plain: boolean;

  constructor(options: VolumeKeysOptions) {
    const { suite, deks, activeDek, pendingDek, sealPending = false, plain = false } = options;
    this.#handles = new Map(deks);
    this.plain = plain;
    // Only who has, or had, plaintext knows the public key: nothing else may be authenticated with it.
    const needsPublic = plain || activeDek === PUBLIC_DEK;
    this.#publicKey = needsPublic ? addon.keyImport(new Uint8Array(PUBLIC_KEY_BYTES)) : undefined;
    if (this.#publicKey !== undefined) this.#handles.set(PUBLIC_DEK, this.#publicKey);
    try {
      this.#trusted = pendingDek === undefined ? [activeDek] : [activeDek, pendingDek];
      const id = sealPending ? (pendingDek ?? activeDek) : activeDek;
      this.#sealing = this.#sealingWith(id, id === PUBLIC_DEK ? 0 : suite);
    } catch (error) {
      this.release();
      throw error;
    }
  }

  #sealingWith(id: number, suite: SuiteId): SealingKey {
    const key = this.#handles.get(id);
    if (key === undefined)
      throw new SealbdError('INTEGRITY', `the active DEK ${id} is not among those unwrapped`);
    return { id, suite, key };
  }

  get handles(): ReadonlyMap<number, KeyHandle> {
    return this.#handles;
  }

  get sealing(): SealingKey {
    return this.#sealing;
  }

  /** Whether roots and the tail of the log count under this DEK: a retired one authenticates old slots and nothing else. */
  trusts(id: number): boolean {
    return this.#trusted.includes(id);
  }

  /** Whether the file of a dead segment may become another segment's: then no file holds bytes under two DEKs. */
  recycles(segment: { readonly dekId: number; readonly suite: SuiteId }): boolean {
    return segment.suite !== 0 && segment.dekId === this.#sealing.id;
  }

  /** Whether the file of a dead segment holds plaintext in a volume that is to have none. */
  erases(segment: { readonly suite: SuiteId }): boolean {
    return this.plain && segment.suite === 0;
  }

  /** What is sealed from now on is under this DEK. What the one before sealed counts until `settle`. */
  switchTo(id: number, key: KeyHandle, suite: SuiteId): void {
    this.#handles.set(id, key);
    if (suite !== this.#sealing.suite && this.#sealing.suite === 0) this.plain = true;
    this.#trusted = [...this.#trusted, id];
    this.#sealing = { id, suite, key };
  }

  /** A root under the sealing DEK is durable, and no tail is under another one. */
  settle(): void {
    this.#trusted = [this.#sealing.id];
  }

  /** Forgets the DEKs that are not among these; without 0 it is said that no plaintext is left. */
  keep(ids: readonly number[]): void {
    for (const id of this.#handles.keys())
      if (id !== this.#sealing.id && !ids.includes(id)) this.#handles.delete(id);
    this.#trusted = this.#trusted.filter((id) => this.#handles.has(id));
    if (this.#handles.has(PUBLIC_DEK)) return;
    this.plain = false;
    this.release();
  }

  release(): void {
    if (this.#publicKey !== undefined) addon.keyRelease(this.#publicKey);
    this.#publicKey = undefined;
  }
}
