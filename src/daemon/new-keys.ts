/** Notices keys that come into being with a volume: only those beside the data can. */
import { KmsError } from '../kms/provider.js';
import type { KeyProviders } from '../kms/registry.js';

export class NewKeys {
  readonly #providers: KeyProviders;
  /** Several volumes may be made under one key at a time. */
  readonly #noticed = new Set<string>();

  constructor(providers: KeyProviders) {
    this.#providers = providers;
  }

  /** Settles as `work` does. `made` learns of a key that was not there before, though the rest may have failed. */
  async during<T>(keyUri: string, work: () => Promise<T>, made: (resolvedKeyId: string) => void): Promise<T> {
    if (!this.#providers.exposes(keyUri)) return work();
    const before = await this.#present(keyUri);
    try {
      return await work();
    } finally {
      const after = await this.#present(keyUri);
      if (before === undefined && after !== undefined && !this.#noticed.has(after)) {
        this.#noticed.add(after);
        made(after);
      }
    }
  }

  /** Undefined where the key is not there, or its file is out of order, which the work itself tells. */
  async #present(keyUri: string): Promise<string | undefined> {
    try {
      return (await this.#providers.open(keyUri).describe()).resolvedKeyId;
    } catch (error) {
      if (error instanceof KmsError) return undefined;
      throw error;
    }
  }
}
