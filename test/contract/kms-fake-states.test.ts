/** States that only a fake can be put into, and changes that take effect late. */
import {
  CreateKeyCommand,
  DecryptCommand,
  DescribeKeyCommand,
  DisableKeyCommand,
  EncryptCommand,
  ListAliasesCommand,
  ScheduleKeyDeletionCommand,
} from '@aws-sdk/client-kms';
import { describe, expect, it } from 'vitest';
import { DEK, startFake, unwrap, wrap } from './fake-and-client.js';
import { altering, errorNameOf, serviceErrorOf } from './kms-client.js';

const DAY_MS = 24 * 3_600_000;

describe('a key', () => {
  it.each([
    ['Disabled', 'DisabledException', 'is disabled.'],
    ['PendingDeletion', 'KMSInvalidStateException', 'is pending deletion.'],
    ['PendingImport', 'KMSInvalidStateException', 'is pending import.'],
    ['Unavailable', 'KMSInvalidStateException', 'is unavailable.'],
  ] as const)('that is %s is described and refuses use', async (state, name, sentence) => {
    const { fake, key, client } = await startFake();
    const blob = await wrap(client);
    fake.setState(key, state);
    const { KeyMetadata } = await client.send(new DescribeKeyCommand({ KeyId: key.arn }));
    expect(KeyMetadata).toMatchObject({ KeyState: state, Enabled: false });
    for (const call of [
      () => unwrap(client, blob),
      () => unwrap(client, blob, key.arn),
      () => wrap(client),
    ]) {
      const error = await serviceErrorOf(call());
      expect([error.name, error.message]).toEqual([name, `${key.arn} ${sentence}`]);
    }
    fake.setState(key, 'Enabled');
    expect(await unwrap(client, blob)).toEqual(DEK);
  });

  it('that is pending deletion can say DisabledException as well', async () => {
    const { fake, key, client } = await startFake();
    const blob = await wrap(client);
    fake.pendingDeletionError = 'DisabledException';
    fake.setState(key, 'PendingDeletion');
    const error = await serviceErrorOf(unwrap(client, blob));
    expect([error.name, error.message]).toEqual(['DisabledException', `${key.arn} is pending deletion.`]);
  });

  it('that was deleted is NotFoundException by name, and AccessDeniedException by ciphertext', async () => {
    const { fake, key, client, administrator } = await startFake();
    const blob = await wrap(client);
    fake.deleteKey(key);
    expect((await administrator.send(new ListAliasesCommand({}))).Aliases).toEqual([]);
    expect(await errorNameOf(client.send(new DescribeKeyCommand({ KeyId: key.arn })))).toBe(
      'NotFoundException',
    );
    expect(await errorNameOf(unwrap(client, blob, key.arn))).toBe('NotFoundException');
    expect(await errorNameOf(wrap(client, 'alias/main'))).toBe('NotFoundException');
    const error = await serviceErrorOf(unwrap(client, blob));
    expect(error.name).toBe('AccessDeniedException');
    expect(error.message).toContain('The ciphertext refers to a customer master key that does not exist');
  });

  it('is deleted when its time has come', async () => {
    let aheadMs = 0;
    const { administrator, client, key } = await startFake({ now: () => Date.now() + aheadMs });
    await administrator.send(new ScheduleKeyDeletionCommand({ KeyId: key.id, PendingWindowInDays: 7 }));
    const describeIt = () => client.send(new DescribeKeyCommand({ KeyId: key.id }));
    aheadMs = 7 * DAY_MS - 60_000;
    // By this refusal the client sets its clock.
    expect(await errorNameOf(describeIt())).toBe('InvalidSignatureException');
    expect((await describeIt()).KeyMetadata?.KeyState).toBe('PendingDeletion');
    aheadMs = 7 * DAY_MS + 1;
    expect(await errorNameOf(describeIt())).toBe('NotFoundException');
  });
});

describe('a change', () => {
  it('shows after as many requests as it is told', async () => {
    const { fake, key, client } = await startFake();
    const blob = await wrap(client);
    fake.setState(key, 'Disabled', { afterRequests: 2 });
    await unwrap(client, blob);
    const { KeyMetadata } = await client.send(new DescribeKeyCommand({ KeyId: key.id }));
    expect(KeyMetadata?.KeyState).toBe('Enabled');
    expect(await errorNameOf(unwrap(client, blob))).toBe('DisabledException');
    fake.deny(['kms:Decrypt'], { lag: { afterRequests: 1 } });
    fake.setState(key, 'Enabled');
    await unwrap(client, blob);
    expect(await errorNameOf(unwrap(client, blob))).toBe('AccessDeniedException');
  });

  it('shows after as much time as it is told, or at once on settle()', async () => {
    let nowMs = Date.now();
    const { fake, key, client } = await startFake({ now: () => nowMs });
    const blob = await wrap(client);
    fake.setState(key, 'Disabled', { afterMs: 60_000 });
    nowMs += 59_999;
    await unwrap(client, blob);
    nowMs += 1;
    expect(await errorNameOf(unwrap(client, blob))).toBe('DisabledException');
    fake.setState(key, 'Enabled', { afterMs: 60_000, afterRequests: 100 });
    fake.settle();
    await unwrap(client, blob);
  });

  it('that a client makes is late where the fake is told so', async () => {
    const { fake, key, client, administrator } = await startFake();
    fake.clientLag = { afterRequests: 1 };
    await administrator.send(new DisableKeyCommand({ KeyId: key.id }));
    await wrap(client);
    expect(await errorNameOf(wrap(client))).toBe('DisabledException');
  });
});

describe('a request', () => {
  it('with a member that the operation does not have is ValidationException', async () => {
    const { client } = await startFake();
    const misspelt = altering(client, 'before', { body: '{"KeyId":"alias/main","keyId":"alias/main"}' });
    expect(await errorNameOf(misspelt.send(new DescribeKeyCommand({ KeyId: 'any' })))).toBe(
      'ValidationException',
    );
  });

  it.each([
    ['{}', 'ValidationException'],
    ['{"KeyId":""}', 'ValidationException'],
    ['{"KeyId":null}', 'ValidationException'],
    ['{"KeyId":7}', 'SerializationException'],
    ['{"KeyId":["alias/main"]}', 'SerializationException'],
    ['[]', 'SerializationException'],
    ['"alias/main"', 'SerializationException'],
    ['', 'SerializationException'],
    ['{"KeyId":"alias/main"', 'SerializationException'],
  ])('with the body %s is %s', async (body, name) => {
    const { client } = await startFake();
    const call = altering(client, 'before', { body }).send(new DescribeKeyCommand({ KeyId: 'any' }));
    expect(await errorNameOf(call)).toBe(name);
  });

  it.each([
    ['{"KeyId":"alias/main","Plaintext":"AAAA","EncryptionContext":{"a":1}}', 'SerializationException'],
    ['{"KeyId":"alias/main","Plaintext":"AAAA","EncryptionContext":["a"]}', 'SerializationException'],
    ['{"KeyId":"alias/main","Plaintext":"A*AA"}', 'SerializationException'],
    ['{"KeyId":"alias/main","Plaintext":"AAAA","EncryptionAlgorithm":"RSA"}', 'ValidationException'],
    ['{"KeyId":"alias/main","Plaintext":"AAAA","DryRun":"yes"}', 'SerializationException'],
    ['{"KeyId":"alias/main","Plaintext":"AAAA","DryRun":true}', 'DryRunOperationException'],
    ['{"KeyId":"alias/main","Plaintext":"AAAA","GrantTokens":["x"]}', 'InvalidGrantTokenException'],
  ])('to encrypt with the body %s is %s', async (body, name) => {
    const { client } = await startFake();
    const call = altering(client, 'before', { body }).send(
      new EncryptCommand({ KeyId: 'any', Plaintext: DEK }),
    );
    expect(await errorNameOf(call)).toBe(name);
  });

  it('for a kind of key that the fake has not is ValidationException', async () => {
    const { administrator } = await startFake();
    for (const input of [{ KeySpec: 'RSA_2048' }, { MultiRegion: true }, { Origin: 'EXTERNAL' }] as const) {
      expect(await errorNameOf(administrator.send(new CreateKeyCommand(input)))).toBe('ValidationException');
    }
  });

  it('with a context of more than 8192 characters is ValidationException', async () => {
    const { client } = await startFake();
    const encrypt = (length: number) =>
      client.send(
        new EncryptCommand({
          KeyId: 'alias/main',
          Plaintext: DEK,
          EncryptionContext: { a: 'x'.repeat(length - 1) },
        }),
      );
    await encrypt(8192);
    expect(await errorNameOf(encrypt(8193))).toBe('ValidationException');
  });

  it('to decrypt says nothing about why a ciphertext does not open', async () => {
    const { client, key } = await startFake();
    const CiphertextBlob = await wrap(client);
    const call = client.send(new DecryptCommand({ CiphertextBlob, KeyId: key.arn, EncryptionContext: {} }));
    const error = await serviceErrorOf(call);
    expect([error.name, error.message]).toEqual(['InvalidCiphertextException', 'UnknownError']);
  });
});
