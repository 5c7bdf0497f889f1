/** What the fake lets whom do. */
import {
  DescribeKeyCommand,
  DisableKeyCommand,
  GenerateDataKeyCommand,
  GenerateDataKeyWithoutPlaintextCommand,
  type KMSClient,
  ListAliasesCommand,
  ReEncryptCommand,
} from '@aws-sdk/client-kms';
import { describe, expect, it } from 'vitest';
import { CONTEXT, clientOf, DEK, startFake, unwrap, wrap } from './fake-and-client.js';
import { errorNameOf, serviceErrorOf } from './kms-client.js';

function reEncrypt(client: KMSClient, CiphertextBlob: Uint8Array, DestinationKeyId: string) {
  return client.send(
    new ReEncryptCommand({ CiphertextBlob, SourceEncryptionContext: CONTEXT, DestinationKeyId }),
  );
}

describe("the daemon's user", () => {
  it('may encrypt, decrypt, re-encrypt and describe, and nothing else', async () => {
    const { client, key } = await startFake();
    const blob = await wrap(client);
    expect(await unwrap(client, blob)).toEqual(DEK);
    await reEncrypt(client, blob, key.id);
    await client.send(new DescribeKeyCommand({ KeyId: key.id }));
    const disable = client.send(new DisableKeyCommand({ KeyId: key.id }));
    expect(await errorNameOf(disable)).toBe('AccessDeniedException');
    const list = client.send(new ListAliasesCommand({}));
    expect(await errorNameOf(list)).toBe('AccessDeniedException');
  });

  it('loses what is denied, and only that, on that key', async () => {
    const { fake, client, key } = await startFake();
    const other = fake.createKey();
    const blobs = { main: await wrap(client), other: await wrap(client, other.id) };
    fake.deny(['kms:Decrypt'], { key });
    const error = await serviceErrorOf(unwrap(client, blobs.main));
    expect([error.name, error.message, error.$metadata.httpStatusCode]).toEqual([
      'AccessDeniedException',
      `User: ${fake.daemonUser} is not authorized to perform: kms:Decrypt on resource: ${key.arn} ` +
        'because no resource-based policy allows the kms:Decrypt action',
      400,
    ]);
    expect(await unwrap(client, blobs.other)).toEqual(DEK);
    await wrap(client);
    fake.allow(['kms:Decrypt'], { key });
    expect(await unwrap(client, blobs.main)).toEqual(DEK);
  });

  it('needs kms:ReEncryptFrom on the old key and kms:ReEncryptTo on the new one', async () => {
    const { fake, client, key } = await startFake();
    const other = fake.createKey();
    const blob = await wrap(client);
    for (const [action, on] of [
      ['kms:ReEncryptFrom', key],
      ['kms:ReEncryptTo', other],
    ] as const) {
      fake.deny([action], { key: on });
      expect((await serviceErrorOf(reEncrypt(client, blob, other.id))).message).toContain(
        `perform: ${action} on resource: ${on.arn}`,
      );
      fake.allow(['kms:ReEncrypt*'], { key: on });
    }
    fake.deny(['kms:ReEncryptTo'], { key });
    fake.deny(['kms:ReEncryptFrom'], { key: other });
    await reEncrypt(client, blob, other.id);
  });

  it('is not the only one: grants are of one user', async () => {
    const { fake, client } = await startFake();
    const principal = 'arn:aws:sts::111122223333:assumed-role/backup/session';
    const second = clientOf(fake, fake.addAccessKey({ principal }));
    const blob = await wrap(client);
    expect(await errorNameOf(unwrap(second, blob))).toBe('AccessDeniedException');
    fake.allow(['kms:Decrypt'], { principal });
    expect(await unwrap(second, blob)).toEqual(DEK);
    fake.deny(['kms:*']);
    expect(await unwrap(second, blob)).toEqual(DEK);
    expect(await errorNameOf(unwrap(client, blob))).toBe('AccessDeniedException');
  });
});

describe('nobody', () => {
  it('may generate data keys, the administrator included', async () => {
    const { client, administrator, key } = await startFake();
    for (const who of [client, administrator]) {
      const input = { KeyId: key.id, KeySpec: 'AES_256' as const };
      expect(await errorNameOf(who.send(new GenerateDataKeyCommand(input)))).toBe('AccessDeniedException');
      expect(await errorNameOf(who.send(new GenerateDataKeyWithoutPlaintextCommand(input)))).toBe(
        'AccessDeniedException',
      );
    }
  });

  it('can grant what the fake does not know', async () => {
    const { fake } = await startFake();
    for (const action of ['kms:GenerateDataKey', 'Decrypt', 'kms:decrypt']) {
      expect(() => fake.allow([action])).toThrow(`no action is called ${action}`);
    }
  });
});
