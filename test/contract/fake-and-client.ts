/** The fake and clients of it, for the tests of what only the fake can do. */
import { randomBytes } from 'node:crypto';
import { DecryptCommand, EncryptCommand, type KMSClient, type KMSClientConfig } from '@aws-sdk/client-kms';
import { onTestFinished } from 'vitest';
import type { AccessKey } from '../support/kms-fake/access-keys.js';
import { KmsFake, type KmsFakeOptions } from '../support/kms-fake/kms-fake.js';
import { kmsClient } from './kms-client.js';

export const DEK = randomBytes(32);
export const CONTEXT = { volume: '6f1c', dek: '1' };

/** A fake that stops when the test has finished, with one key, alias/main. */
export async function startFake(options: KmsFakeOptions = {}) {
  const fake = await KmsFake.start(options);
  onTestFinished(() => fake.stop());
  const key = fake.createKey({ alias: 'alias/main' });
  return { fake, key, client: clientOf(fake), administrator: clientOf(fake, fake.administratorCredentials) };
}

/** Destroyed when the test has finished; makes one attempt unless told otherwise. */
export function clientOf(
  fake: KmsFake,
  credentials: AccessKey = fake.daemonCredentials,
  config: KMSClientConfig = {},
): KMSClient {
  const client = kmsClient({ endpoint: fake.endpoint, region: fake.region, credentials }, config);
  onTestFinished(() => client.destroy());
  return client;
}

export async function wrap(client: KMSClient, KeyId = 'alias/main'): Promise<Uint8Array> {
  const { CiphertextBlob } = await client.send(
    new EncryptCommand({ KeyId, Plaintext: DEK, EncryptionContext: CONTEXT }),
  );
  return CiphertextBlob!;
}

export async function unwrap(client: KMSClient, CiphertextBlob: Uint8Array, KeyId?: string): Promise<Buffer> {
  const { Plaintext } = await client.send(
    new DecryptCommand({
      CiphertextBlob,
      EncryptionContext: CONTEXT,
      ...(KeyId === undefined ? {} : { KeyId }),
    }),
  );
  return Buffer.from(Plaintext!);
}
