/**
 * `awskms:///KEY`: DEKs are wrapped by AWS KMS. Needs kms:Encrypt, kms:Decrypt, kms:DescribeKey and, to re-wrap without
 * the DEK leaving KMS, kms:ReEncryptFrom and kms:ReEncryptTo; nothing else, kms:GenerateDataKey least of all.
 *
 * With each wrap goes the ARN of the key that KMS names in its answer, and unwrapping names that ARN: an alias may be
 * pointed elsewhere meanwhile.
 */
import { messageOf } from '../../base/errors.js';
import { KMS_CIPHERTEXT_BYTES_MAX } from '../../base/limits.js';
import type { KeyHandle } from '../../native/addon.js';
import {
  type KeyDescription,
  type KeyProvider,
  type KmsEnvironment,
  KmsError,
  type ProbeReport,
  type ProviderScheme,
  type WrapContext,
  type WrappedKey,
} from '../provider.js';
import { checkByUnwrapping, moveThroughMemory } from '../through-memory.js';
import { awsClients, closeAwsClients } from './clients.js';
import { inWords } from './describe.js';
import { AwsKmsError } from './errors.js';
import {
  AWS_KEY_SYNTAX,
  type AwsKeyUri,
  isKeyOf,
  type KeyArn,
  parseAwsKeyUri,
  parseKeyArn,
  weaknessAsPin,
} from './key-uri.js';
import { AwsOperations, type Ciphertext } from './operations.js';
import { probeAwsKey } from './probe.js';

export const awsScheme: ProviderScheme = {
  scheme: 'awskms',
  syntax: AWS_KEY_SYNTAX,
  exposes: false,
  open: (uri, environment) => new AwsProvider(parseAwsKeyUri(uri), environment),
  weaknessAsPin: (uri) => weaknessAsPin(parseAwsKeyUri(uri)),
  spell: (resolvedKeyId) => `awskms:///${resolvedKeyId}`,
  close: closeAwsClients,
};

class AwsProvider implements KeyProvider {
  readonly uri: string;
  readonly #key: AwsKeyUri;
  readonly #environment: KmsEnvironment;
  readonly #kms: AwsOperations;

  constructor(key: AwsKeyUri, environment: KmsEnvironment) {
    this.uri = key.uri;
    this.#key = key;
    this.#environment = environment;
    this.#kms = new AwsOperations(awsClients(environment));
  }

  /** Keys are made in AWS, by who owns them. */
  async ensure(): Promise<void> {}

  async describe(resolvedKeyId?: string): Promise<KeyDescription> {
    const wrapping = resolvedKeyId === undefined ? undefined : this.#keyOfWrap(resolvedKeyId);
    const facts = await this.#kms.describe(
      wrapping?.region ?? this.#key.region,
      wrapping?.arn ?? this.#key.keyId,
    );
    return {
      resolvedKeyId: facts.key.arn,
      keyVersion: facts.materialId ?? '',
      detail: `AWS KMS: ${facts.key.arn} ${inWords(facts.metadata)}`,
    };
  }

  async wrap(dek: KeyHandle, context: WrapContext): Promise<WrappedKey> {
    return this.#wrappedKey(await this.#kms.encrypt(this.#key.region, this.#key.keyId, dek, context));
  }

  async unwrap(wrapped: WrappedKey, context: WrapContext): Promise<KeyHandle> {
    return this.#kms.decrypt(this.#keyThatWrapped(wrapped), wrapped.blob, context);
  }

  async rewrap(
    wrapped: WrappedKey,
    from: KeyProvider,
    fromContext: WrapContext,
    context: WrapContext,
  ): Promise<WrappedKey> {
    if (from instanceof AwsProvider) {
      const moved = await this.#reEncrypt(from.#keyThatWrapped(wrapped), wrapped.blob, fromContext, context);
      if (moved !== undefined) return this.#wrappedKey(moved);
    }
    return moveThroughMemory(wrapped, { from, fromContext, to: this, context });
  }

  check(wrapped: WrappedKey, context: WrapContext, dek: KeyHandle): Promise<void> {
    return checkByUnwrapping(this, wrapped, context, dek);
  }

  probe(): Promise<ProbeReport> {
    return probeAwsKey(this.#key, this.#kms, this.#environment.random);
  }

  /** Undefined where KMS cannot do that: between regions, or without the permission. */
  async #reEncrypt(
    key: KeyArn,
    blob: Uint8Array,
    fromContext: WrapContext,
    context: WrapContext,
  ): Promise<Ciphertext | undefined> {
    const region = this.#key.region ?? (await this.#kms.defaultRegion());
    if (region !== key.region) return undefined;
    try {
      return await this.#kms.reEncrypt(
        this.#key.region,
        { key, blob, context: fromContext },
        { keyId: this.#key.keyId, context },
      );
    } catch (error) {
      if (!(error instanceof AwsKmsError) || error.awsName !== 'AccessDeniedException') throw error;
      this.#environment.log.warn(
        { keyUri: this.uri, reason: messageOf(error) },
        'no permission to re-encrypt: the DEK passes through this process instead',
      );
      return undefined;
    }
  }

  /** AWS names the material of an Encrypt nowhere; what DescribeKey says right after is as good as that, or nothing. */
  async #wrappedKey({ blob, key, materialId }: Ciphertext): Promise<WrappedKey> {
    if (!isKeyOf(this.#key, key)) {
      throw new AwsKmsError(
        'unreachable',
        'OtherKey',
        `${this.uri}: AWS KMS answers for another key, ${key.arn}`,
        undefined,
      );
    }
    return { blob, resolvedKeyId: key.arn, keyVersion: materialId ?? (await this.#currentMaterial(key)) };
  }

  async #currentMaterial(key: KeyArn): Promise<string> {
    try {
      return (await this.#kms.describe(key.region, key.arn)).materialId ?? '';
    } catch (error) {
      // For people alone, and no reason to give up a wrap that is there.
      this.#environment.log.debug(
        { keyUri: this.uri, reason: messageOf(error) },
        'the key version is not known',
      );
      return '';
    }
  }

  /** Contacts nobody: what is stored may be forged (key-uri.ts). */
  #keyThatWrapped({ resolvedKeyId, blob }: WrappedKey): KeyArn {
    const key = this.#keyOfWrap(resolvedKeyId);
    if (blob.length === 0 || blob.length > KMS_CIPHERTEXT_BYTES_MAX) {
      throw new KmsError('damaged', `the DEK that ${key.arn} wrapped has ${blob.length} bytes`);
    }
    return key;
  }

  #keyOfWrap(resolvedKeyId: string): KeyArn {
    const key = parseKeyArn(resolvedKeyId);
    if (key === undefined) {
      throw new KmsError(
        'damaged',
        `"${resolvedKeyId}", stored with a DEK under ${this.uri}, is not the ARN of a key`,
      );
    }
    if (!isKeyOf(this.#key, key)) {
      throw new KmsError('damaged', `${key.arn}, stored with a DEK under ${this.uri}, is not that key`);
    }
    return key;
  }
}
