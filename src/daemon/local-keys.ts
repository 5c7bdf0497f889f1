/** Passphrase-protected copies of `local:` keys: out of the keyring and into it. */
import { SealbdError } from '../base/errors.js';
import type { RandomSource } from '../base/random.js';
import { newestDek } from '../keys/superblock.js';
import { openKeyFile, sealKeyFile } from '../kms/local/export-file.js';
import type { Keyring } from '../kms/local/keyring.js';
import { localKeyName } from '../kms/local/provider.js';
import { addon } from '../native/addon.js';
import type { VolumeManager } from './volume-manager.js';

export class LocalKeys {
  readonly #keyring: Keyring;
  readonly #volumes: VolumeManager;
  readonly #random: RandomSource;

  constructor(keyring: Keyring, volumes: VolumeManager, random: RandomSource) {
    this.#keyring = keyring;
    this.#volumes = volumes;
    this.#random = random;
  }

  async exportKey(given: string, passphrase: string): Promise<{ name: string; file: string }> {
    const name = await this.#resolve(given);
    const key = await this.#keyring.withKey(name, (found) => {
      addon.keyRetain(found.handle);
      return found;
    });
    try {
      return { name, file: await sealKeyFile(key, passphrase, this.#random) };
    } finally {
      addon.keyRelease(key.handle);
    }
  }

  /** `added` is false where the same key was there already; another key of that name is a CONFLICT. */
  async importKey(
    given: string,
    passphrase: string,
    file: string,
  ): Promise<{ name: string; added: boolean }> {
    const name = await this.#resolve(given);
    const { key, handle } = await openKeyFile(file, passphrase);
    let moved = false;
    try {
      if (key.name !== name) {
        throw new SealbdError('CONFLICT', `the file holds local:${key.name}, not local:${name}`);
      }
      const added = await this.#keyring.add(key, () => {
        moved = true;
        return handle;
      });
      if (!added) {
        const same = await this.#keyring.withKey(
          name,
          (present) => present.id === key.id && addon.keyEquals(present.handle, handle),
        );
        if (!same) throw new SealbdError('CONFLICT', `keyring.json has another key local:${name}`);
      }
      return { name, added };
    } finally {
      if (!moved) addon.keyRelease(handle);
    }
  }

  /** A key's own name comes first; else the volume of that name tells its key. */
  async #resolve(given: string): Promise<string> {
    if (await this.#keyring.has(given)) return given;
    const superblock = this.#volumes.find(given)?.superblock;
    const uri = superblock === undefined ? undefined : newestDek(superblock)?.keyUri;
    return uri?.startsWith('local:') ? localKeyName(uri) : given;
  }
}
