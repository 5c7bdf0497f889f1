/** The four operations of AWS KMS that sealbd uses, and their errors, as the provider needs them. */
import type { KeyMetadata } from '@aws-sdk/client-kms';
import { formatUuid } from '../../base/random.js';
import type { KeyHandle } from '../../native/addon.js';
import type { WrapContext } from '../provider.js';
import type { AwsClients, Call } from './clients.js';
import { AwsKmsError } from './errors.js';
import { judgedByState } from './invalid-state.js';
import { type KeyArn, parseKeyArn } from './key-uri.js';
import { NO_KEY, receivingKey, sendingKey } from './plaintext.js';

export interface Ciphertext {
  readonly blob: Uint8Array;
  readonly key: KeyArn;
  /** Of the key material, where AWS says. */
  readonly materialId: string | undefined;
}

export interface KeyFacts {
  readonly key: KeyArn;
  readonly materialId: string | undefined;
  readonly metadata: KeyMetadata;
}

/** What AWS authenticates along with the DEK, and shows in CloudTrail (docs/FORMAT.md). */
export function encryptionContext({ volumeUuid, dekId, exposed }: WrapContext): Record<string, string> {
  return {
    'sealbd:volume': formatUuid(volumeUuid),
    'sealbd:dek': String(dekId),
    'sealbd:exposed': String(exposed),
  };
}

export class AwsOperations {
  readonly #clients: AwsClients;

  constructor(clients: AwsClients) {
    this.#clients = clients;
  }

  /** Hosts that got a request without TLS over the network. */
  get inTheClear(): ReadonlySet<string> {
    return this.#clients.inTheClear;
  }

  defaultRegion(): Promise<string> {
    return this.#clients.defaultRegion();
  }

  encrypt(
    region: string | undefined,
    keyId: string,
    dek: KeyHandle,
    context: WrapContext,
  ): Promise<Ciphertext> {
    const action = `kms:Encrypt under ${keyId}`;
    return this.#clients.call(region, action, async (call) => {
      const { sdk, client, signal } = call;
      const command = new sdk.EncryptCommand({
        KeyId: keyId,
        Plaintext: NO_KEY,
        EncryptionContext: encryptionContext(context),
      });
      const send = () => client.send(command, { abortSignal: signal });
      const output = await judgedByState(call, action, [keyId], () => sendingKey(command, dek, signal, send));
      return {
        blob: blobOf(output.CiphertextBlob, action),
        key: arnOf(output.KeyId, action),
        materialId: undefined,
      };
    });
  }

  /** The caller owns the handle. */
  decrypt(key: KeyArn, blob: Uint8Array, context: WrapContext): Promise<KeyHandle> {
    const action = `kms:Decrypt under ${key.arn}`;
    return this.#clients.call(key.region, action, async (call) => {
      const { sdk, client, signal } = call;
      const command = new sdk.DecryptCommand({
        KeyId: key.arn,
        CiphertextBlob: blob,
        EncryptionContext: encryptionContext(context),
      });
      const send = () => client.send(command, { abortSignal: signal });
      const receive = () => receivingKey(command, signal, send);
      return (await judgedByState(call, action, [key.arn], receive)).key;
    });
  }

  /** The DEK does not leave KMS. */
  reEncrypt(
    region: string | undefined,
    from: { readonly key: KeyArn; readonly blob: Uint8Array; readonly context: WrapContext },
    to: { readonly keyId: string; readonly context: WrapContext },
  ): Promise<Ciphertext> {
    const action = `kms:ReEncrypt from ${from.key.arn} to ${to.keyId}`;
    return this.#clients.call(region, action, async (call) => {
      const { sdk, client, signal } = call;
      const command = new sdk.ReEncryptCommand({
        SourceKeyId: from.key.arn,
        SourceEncryptionContext: encryptionContext(from.context),
        CiphertextBlob: from.blob,
        DestinationKeyId: to.keyId,
        DestinationEncryptionContext: encryptionContext(to.context),
      });
      const output = await judgedByState(call, action, [from.key.arn, to.keyId], () => {
        return client.send(command, { abortSignal: signal });
      });
      return {
        blob: blobOf(output.CiphertextBlob, action),
        key: arnOf(output.KeyId, action),
        materialId: output.DestinationKeyMaterialId,
      };
    });
  }

  /** Succeeds in every state of the key but its absence. */
  describe(region: string | undefined, keyId: string): Promise<KeyFacts> {
    const action = `kms:DescribeKey of ${keyId}`;
    return this.#clients.call(region, action, async ({ sdk, client, signal }: Call) => {
      const { KeyMetadata: metadata } = await client.send(new sdk.DescribeKeyCommand({ KeyId: keyId }), {
        abortSignal: signal,
      });
      if (metadata === undefined) throw incomplete(action, 'KeyMetadata');
      return { key: arnOf(metadata.Arn, action), materialId: metadata.CurrentKeyMaterialId, metadata };
    });
  }
}

function blobOf(blob: Uint8Array | undefined, action: string): Uint8Array {
  if (blob === undefined || blob.length === 0) throw incomplete(action, 'CiphertextBlob');
  return blob;
}

function arnOf(text: string | undefined, action: string): KeyArn {
  const key = parseKeyArn(text ?? '');
  if (key === undefined) throw incomplete(action, 'the ARN of a key');
  return key;
}

function incomplete(action: string, what: string): AwsKmsError {
  const message = `${action}: AWS KMS gives no answer of use: ${what} is missing in it`;
  return new AwsKmsError('unreachable', 'Incomplete', message, undefined);
}
