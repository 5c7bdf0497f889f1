/**
 * `local:NAME`, the embedded default: a key in DIR/keyring.json. It protects nothing from whoever can read that
 * file; it exists so that a volume can be tried, and later moved under a key that does protect it.
 */
import { join } from 'node:path';
import { messageOf, SealbdError } from '../../base/errors.js';
import { NAME_PATTERN } from '../../base/limits.js';
import { formatUuid, randomUuid } from '../../base/random.js';
import { addon, type KeyHandle } from '../../native/addon.js';
import {
  type KeyDescription,
  type KeyProvider,
  type KmsEnvironment,
  KmsError,
  type ProbeReport,
  type ProbeStep,
  type ProviderScheme,
  type WrapContext,
  type WrappedKey,
} from '../provider.js';
import { checkByUnwrapping, moveThroughMemory } from '../through-memory.js';
import { Keyring } from './keyring.js';
import type { LocalKey } from './keyring-codec.js';

const KEY_VERSION = '1';

export const localScheme: ProviderScheme = {
  scheme: 'local',
  syntax: 'local:NAME',
  exposes: true,
  weaknessAsPin: () => 'it is a local one: who can write the data directory can replace it',
  open: (uri, environment) => new LocalProvider(localKeyName(uri), environment),
};

/** The name in `local:NAME`; USAGE where it is not one. */
export function localKeyName(uri: string): string {
  const name = uri.slice('local:'.length);
  if (!uri.startsWith('local:') || !NAME_PATTERN.test(name)) {
    throw new SealbdError(
      'USAGE',
      `key "${uri}" is not local:NAME with a name that matches ${NAME_PATTERN.source}`,
    );
  }
  return name;
}

const keyrings = new Map<string, Keyring>();

/** One object for each file, so that additions are serialised. */
export function keyringOf(dataDirectory: string): Keyring {
  const path = join(dataDirectory, 'keyring.json');
  let keyring = keyrings.get(path);
  if (keyring === undefined) {
    keyring = new Keyring(path);
    keyrings.set(path, keyring);
  }
  return keyring;
}

class LocalProvider implements KeyProvider {
  readonly uri: string;
  readonly #name: string;
  readonly #keyring: Keyring;
  readonly #environment: KmsEnvironment;

  constructor(name: string, environment: KmsEnvironment) {
    this.uri = `local:${name}`;
    this.#name = name;
    this.#environment = environment;
    this.#keyring = keyringOf(environment.dataDirectory);
  }

  async ensure(): Promise<void> {
    const id = formatUuid(randomUuid(this.#environment.random));
    const createdAt = new Date(this.#environment.clock.now()).toISOString();
    const added = await this.#keyring.add({ name: this.#name, id, createdAt }, () => addon.keyGenerate());
    if (added)
      this.#environment.log.warn(
        { keyUri: this.uri },
        'made a local key, which protects nothing from whoever can read keyring.json',
      );
  }

  describe(resolvedKeyId?: string): Promise<KeyDescription> {
    return this.#keyring.withKey(this.#name, (key) => {
      if (resolvedKeyId !== undefined) this.#assertWrappedBy(key, resolvedKeyId);
      return {
        resolvedKeyId: resolved(key),
        keyVersion: KEY_VERSION,
        detail: `in ${this.#keyring.path} since ${key.createdAt}`,
      };
    });
  }

  wrap(dek: KeyHandle, context: WrapContext): Promise<WrappedKey> {
    return this.#keyring.withKey(this.#name, (key) => ({
      blob: addon.keyWrap(key.handle, dek, wrapAad(context)),
      resolvedKeyId: resolved(key),
      keyVersion: KEY_VERSION,
    }));
  }

  unwrap(wrapped: WrappedKey, context: WrapContext): Promise<KeyHandle> {
    return this.#keyring.withKey(this.#name, (key) => {
      this.#assertWrappedBy(key, wrapped.resolvedKeyId);
      try {
        return addon.keyUnwrap(key.handle, wrapped.blob, wrapAad(context));
      } catch (error) {
        if ((error as { code?: unknown }).code !== 'KEY_AUTH') throw error;
        throw new KmsError(
          'damaged',
          `the wrapped DEK ${context.dekId} does not belong to ${this.uri}`,
          error,
        );
      }
    });
  }

  #assertWrappedBy(key: LocalKey, resolvedKeyId: string): void {
    if (resolved(key) === resolvedKeyId) return;
    throw new KmsError(
      'refused',
      `${this.uri} is now another key than the one that wrapped this DEK (${resolvedKeyId})`,
    );
  }

  rewrap(
    wrapped: WrappedKey,
    from: KeyProvider,
    fromContext: WrapContext,
    context: WrapContext,
  ): Promise<WrappedKey> {
    return moveThroughMemory(wrapped, { from, fromContext, to: this, context });
  }

  check(wrapped: WrappedKey, context: WrapContext, dek: KeyHandle): Promise<void> {
    return checkByUnwrapping(this, wrapped, context, dek);
  }

  /** Says what is missing, and makes nothing. */
  async probe(): Promise<ProbeReport> {
    const steps: ProbeStep[] = [];
    let goesOn = true;
    const step = async (permission: string, fix: string, work: () => Promise<unknown>): Promise<void> => {
      if (!goesOn) return void steps.push({ permission, outcome: 'skipped', error: 'needs the step before' });
      try {
        await work();
        steps.push({ permission, outcome: 'ok' });
      } catch (error) {
        goesOn = false;
        steps.push({ permission, outcome: 'failed', error: messageOf(error), fix });
      }
    };
    const { path } = this.#keyring;
    const make = `create a volume with --key ${this.uri}, which makes the key, or bring one back: sealbd key import-local`;
    const dek = addon.keyGenerate();
    const context = { volumeUuid: randomUuid(this.#environment.random), dekId: 1, exposed: true };
    let key: KeyDescription | undefined;
    let wrapped: WrappedKey | undefined;
    try {
      await step('read keyring.json', `make ${path} a sound file of mode 0600`, () =>
        this.#keyring.has(this.#name),
      );
      await step('find the key', make, async () => {
        key = await this.describe();
      });
      await step('wrap', make, async () => {
        wrapped = await this.wrap(dek, context);
      });
      await step('unwrap', make, () => this.check(wrapped!, context, dek));
    } finally {
      addon.keyRelease(dek);
    }
    const warnings = [`whoever can read ${path}, or a copy of it, can read every volume under ${this.uri}`];
    return { steps, warnings, ...(key && { resolvedKeyId: key.resolvedKeyId, keyVersion: key.keyVersion }) };
  }
}

function resolved(key: LocalKey): string {
  return `local:${key.name}#${key.id}`;
}

/** be32(DEK id) ‖ uuid ‖ flags (docs/FORMAT.md). */
function wrapAad(context: WrapContext): Uint8Array {
  const aad = Buffer.alloc(4 + context.volumeUuid.length + 1);
  aad.writeUInt32BE(context.dekId, 0);
  aad.set(context.volumeUuid, 4);
  aad.writeUInt8(context.exposed ? 1 : 0, 4 + context.volumeUuid.length);
  return aad;
}
