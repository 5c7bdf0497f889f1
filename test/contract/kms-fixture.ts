/** A key service under test, and what every test of the suite does with it. */
import { randomBytes } from 'node:crypto';
import {
  CreateAliasCommand,
  CreateKeyCommand,
  DecryptCommand,
  type DecryptCommandOutput,
  DescribeKeyCommand,
  EncryptCommand,
  type KeyMetadata,
  type KMSClient,
} from '@aws-sdk/client-kms';
import { it } from 'vitest';
import { type KmsTarget, kmsClient } from './kms-client.js';
import type { Deviation } from './moto-deviations.js';

/** `target` is what an administrator connects with. */
export interface RunningKms {
  readonly target: KmsTarget;
  readonly stop: () => Promise<void>;
}

export type Context = Record<string, string>;

export const DEK = randomBytes(32);
export const CONTEXT = { volume: '6f1c', dek: '1' };

export class KmsFixture {
  readonly #deviations: ReadonlySet<Deviation>;
  #server: RunningKms | undefined;
  #client: KMSClient | undefined;

  constructor(deviations: ReadonlySet<Deviation>) {
    this.#deviations = deviations;
  }

  open(server: RunningKms): void {
    this.#server = server;
    this.#client = kmsClient(server.target);
  }

  async close(): Promise<void> {
    this.#client?.destroy();
    await this.#server?.stop();
  }

  get target(): KmsTarget {
    return this.#server!.target;
  }

  get client(): KMSClient {
    return this.#client!;
  }

  /** One test: of what KMS does, or of what this server is known to do in its place. */
  unless(deviation: Deviation, title: string, right: () => Promise<void>, known: () => Promise<void>): void {
    if (this.#deviations.has(deviation)) it(`does not: ${title} (${deviation})`, known);
    else it(title, right);
  }

  async makeKey(): Promise<KeyMetadata & { KeyId: string; Arn: string }> {
    const { KeyMetadata: key } = await this.client.send(new CreateKeyCommand({}));
    return { ...key, KeyId: key!.KeyId!, Arn: key!.Arn! };
  }

  async makeAlias(keyId: string): Promise<string> {
    const AliasName = `alias/test-${randomBytes(8).toString('hex')}`;
    await this.client.send(new CreateAliasCommand({ AliasName, TargetKeyId: keyId }));
    return AliasName;
  }

  /** DEK under the key. */
  async wrap(KeyId: string, EncryptionContext: Context = CONTEXT): Promise<Uint8Array> {
    const answer = await this.client.send(new EncryptCommand({ KeyId, Plaintext: DEK, EncryptionContext }));
    return answer.CiphertextBlob!;
  }

  unwrap(
    CiphertextBlob: Uint8Array,
    options: { readonly KeyId?: string; readonly context?: Context } = {},
  ): Promise<DecryptCommandOutput> {
    const { context = CONTEXT, ...named } = options;
    return this.client.send(new DecryptCommand({ CiphertextBlob, EncryptionContext: context, ...named }));
  }

  async describeKey(KeyId: string): Promise<KeyMetadata> {
    const { KeyMetadata } = await this.client.send(new DescribeKeyCommand({ KeyId }));
    return KeyMetadata!;
  }
}

export function bytes(value: Uint8Array | undefined): Buffer {
  return Buffer.from(value!);
}
