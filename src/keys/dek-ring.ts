/** The unwrapped DEKs of one open volume, by id. Handles only; the bytes are in the addon's slots. */
import { SealbdError } from '../base/errors.js';
import { addon, type KeyHandle } from '../native/addon.js';

export class DekRing {
  readonly #handles: Map<number, KeyHandle>;
  #revoked = false;

  /** Takes over the handles. */
  constructor(handles: Map<number, KeyHandle>) {
    this.#handles = handles;
  }

  get handles(): ReadonlyMap<number, KeyHandle> {
    return this.#handles;
  }

  /** Takes over one more handle. ESHUTDOWN, and wiped, where the ring was revoked meanwhile. */
  add(id: number, handle: KeyHandle): void {
    if (this.#revoked) {
      wipe(handle);
      throw new SealbdError('ESHUTDOWN', 'the keys of this volume were taken away');
    }
    this.#handles.set(id, handle);
  }

  /** Wipes one DEK, and all that was derived from it. */
  drop(id: number): void {
    const handle = this.#handles.get(id);
    if (handle === undefined || this.#revoked) return;
    this.#handles.delete(id);
    wipe(handle);
  }

  /**
   * Wipes every DEK and all that was derived from it, whoever still holds it. Jobs under way fail. The dead handles
   * stay listed, so that whoever comes late is told that the key was taken away, not that there never was one.
   */
  revoke(): void {
    if (this.#revoked) return;
    this.#revoked = true;
    for (const handle of this.#handles.values()) wipe(handle);
  }
}

function wipe(handle: KeyHandle): void {
  addon.keyRevoke(handle);
  addon.keyRelease(handle);
}

/**
 * Lends keys by DEK id to what makes or checks a superblock. DEK 0 authenticates the metadata of a `none` volume: 32 zero
 * bytes, public (docs/FORMAT.md).
 */
export function withKeys<T>(
  handles: ReadonlyMap<number, KeyHandle>,
  use: (keyOf: (id: number) => KeyHandle | undefined) => T,
): T {
  const publicKey = addon.keyImport(new Uint8Array(32));
  try {
    return use((id) => (id === 0 ? publicKey : handles.get(id)));
  } finally {
    addon.keyRelease(publicKey);
  }
}

export interface LentKeys {
  readonly handles: ReadonlyMap<number, KeyHandle>;
  /** Gives back the public key; the others stay as they are. */
  release(): void;
}

/** The same handles, and the public key as DEK 0 where there is plaintext. DEKs that the volume gets later are among them. */
export function lendKeys(handles: ReadonlyMap<number, KeyHandle>, plain: boolean): LentKeys {
  if (!plain) return { handles, release: () => undefined };
  const publicKey = addon.keyImport(new Uint8Array(32));
  return { handles: new WithPublicKey(handles, publicKey), release: () => addon.keyRelease(publicKey) };
}

/** A view, not a copy: a copy would lack a DEK that is made, and keep one that is dropped, meanwhile. */
class WithPublicKey implements ReadonlyMap<number, KeyHandle> {
  readonly #handles: ReadonlyMap<number, KeyHandle>;
  readonly #publicKey: KeyHandle;

  constructor(handles: ReadonlyMap<number, KeyHandle>, publicKey: KeyHandle) {
    this.#handles = handles;
    this.#publicKey = publicKey;
  }

  get(id: number): KeyHandle | undefined {
    return id === 0 ? this.#publicKey : this.#handles.get(id);
  }

  has(id: number): boolean {
    return this.get(id) !== undefined;
  }

  get size(): number {
    return this.#all().size;
  }

  keys = () => this.#all().keys();
  values = () => this.#all().values();
  entries = () => this.#all().entries();
  [Symbol.iterator] = () => this.#all().entries();

  forEach(callback: (handle: KeyHandle, id: number, map: ReadonlyMap<number, KeyHandle>) => void): void {
    for (const [id, handle] of this.#all()) callback(handle, id, this);
  }

  #all(): Map<number, KeyHandle> {
    return new Map([...this.#handles, [0, this.#publicKey]]);
  }
}
