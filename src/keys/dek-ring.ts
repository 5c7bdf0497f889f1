/** The unwrapped DEKs of one open volume, by id. Handles only; the bytes are in the addon's slots. */
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

  /**
   * Wipes every DEK and all that was derived from it, whoever still holds it. Jobs under way fail. The dead handles
   * stay listed, so that whoever comes late is told that the key was taken away, not that there never was one.
   */
  revoke(): void {
    if (this.#revoked) return;
    this.#revoked = true;
    for (const handle of this.#handles.values()) {
      addon.keyRevoke(handle);
      addon.keyRelease(handle);
    }
  }
}

/** The key that authenticates the metadata of a `none` volume: 32 zero bytes, public (docs/FORMAT.md). */
export function withPublicKey<T>(use: (key: KeyHandle) => T): T {
  const key = addon.keyImport(new Uint8Array(32));
  try {
    return use(key);
  } finally {
    addon.keyRelease(key);
  }
}
