/** The unwrapped DEKs of one open volume, by id. Handles only; the bytes are in the addon's slots. */
import { addon, type KeyHandle } from '../native/addon.js';

export class DekRing {
  readonly #handles: Map<number, KeyHandle>;

  /** Takes over the handles. */
  constructor(handles: Map<number, KeyHandle>) {
    this.#handles = handles;
  }

  get handles(): ReadonlyMap<number, KeyHandle> {
    return this.#handles;
  }

  /** Wipes every DEK and all that was derived from it, whoever still holds it. Jobs under way fail. */
  revoke(): void {
    for (const handle of this.#handles.values()) {
      addon.keyRevoke(handle);
      addon.keyRelease(handle);
    }
    this.#handles.clear();
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
