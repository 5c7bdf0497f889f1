/** The fake takes signed requests of known users, and says what is wrong with others. */
import { DescribeKeyCommand, type KMSClient } from '@aws-sdk/client-kms';
import { describe, expect, it } from 'vitest';
import { clientOf, startFake } from './fake-and-client.js';
import { type Alteration, altering, errorNameOf, kmsClient, serviceErrorOf } from './kms-client.js';

const MINUTE_MS = 60_000;

const describeMain = (client: KMSClient) => client.send(new DescribeKeyCommand({ KeyId: 'alias/main' }));

describe('credentials', () => {
  it('of the daemon and the administrator work, and the log says whose they were', async () => {
    const { fake, client, administrator } = await startFake();
    await describeMain(client);
    await describeMain(administrator);
    expect(fake.requests.map(({ principal }) => principal)).toEqual([
      'arn:aws:iam::111122223333:user/sealbd',
      'arn:aws:iam::111122223333:user/administrator',
    ]);
  });

  it('that are unknown or were removed are UnrecognizedClientException', async () => {
    const { fake, client } = await startFake();
    const unknown = { ...fake.daemonCredentials, accessKeyId: 'AKIAUNKNOWN' };
    expect(await errorNameOf(describeMain(clientOf(fake, unknown)))).toBe('UnrecognizedClientException');
    fake.removeAccessKey(fake.daemonCredentials.accessKeyId);
    expect(await errorNameOf(describeMain(client))).toBe('UnrecognizedClientException');
  });

  it('that are temporary need their session token', async () => {
    const { fake } = await startFake();
    const temporary = fake.addAccessKey({ session: true });
    await describeMain(clientOf(fake, temporary));
    for (const sessionToken of [undefined, 'another']) {
      const broken = clientOf(fake, { ...temporary, sessionToken });
      expect(await errorNameOf(describeMain(broken))).toBe('UnrecognizedClientException');
    }
    const superfluous = clientOf(fake, { ...fake.daemonCredentials, sessionToken: 'any' });
    expect(await errorNameOf(describeMain(superfluous))).toBe('UnrecognizedClientException');
  });

  it('that have expired are ExpiredTokenException', async () => {
    let nowMs = Date.now();
    const { fake, client } = await startFake({ now: () => nowMs });
    const temporary = fake.addAccessKey({ expiresAtMs: nowMs + MINUTE_MS });
    const shortLived = clientOf(fake, temporary);
    await describeMain(shortLived);
    nowMs += MINUTE_MS;
    const error = await serviceErrorOf(describeMain(shortLived));
    expect([error.name, error.message]).toEqual([
      'ExpiredTokenException',
      'The security token included in the request is expired',
    ]);
    await describeMain(client);
    fake.expireAccessKey(fake.daemonCredentials.accessKeyId);
    expect(await errorNameOf(describeMain(client))).toBe('ExpiredTokenException');
  });
});

describe('a signature', () => {
  async function errorAfter(when: 'before' | 'after', change: Alteration): Promise<string> {
    const { fake } = await startFake();
    return errorNameOf(describeMain(altering(clientOf(fake), when, change)));
  }

  it('that is missing is MissingAuthenticationTokenException', async () => {
    expect(await errorAfter('after', { headers: { authorization: undefined } })).toBe(
      'MissingAuthenticationTokenException',
    );
  });

  it('that is none is IncompleteSignatureException', async () => {
    const broken = [
      'Basic YTpi',
      'AWS4-HMAC-SHA256 ',
      'AWS4-HMAC-SHA256 Credential=AKIA/20260101/us-east-1/kms/aws4_request, Signature=00',
    ];
    for (const authorization of broken) {
      expect(await errorAfter('after', { headers: { authorization } })).toBe('IncompleteSignatureException');
    }
    expect(await errorAfter('after', { headers: { 'x-amz-date': undefined } })).toBe(
      'IncompleteSignatureException',
    );
  });

  it('covers target, host, content type and body', async () => {
    const changes: Alteration[] = [
      { headers: { 'x-amz-target': 'TrentService.DisableKey' } },
      { headers: { host: 'kms.example' } },
      { body: '{"KeyId":"alias/other"}' },
      { body: '{"KeyId":"alias/main" }' },
    ];
    for (const change of changes) {
      expect(await errorAfter('after', change), JSON.stringify(change)).toBe('InvalidSignatureException');
    }
    expect(await errorAfter('after', { headers: { 'content-type': 'application/json' } })).toBe(
      'UnknownOperationException',
    );
  });

  it('with another secret, or for another region, is InvalidSignatureException', async () => {
    const { fake } = await startFake();
    const other = { ...fake.daemonCredentials, secretAccessKey: 'another' };
    const error = await serviceErrorOf(describeMain(clientOf(fake, other)));
    expect(error.name).toBe('InvalidSignatureException');
    expect(error.message).toContain('does not match the signature you provided');
    const { endpoint, daemonCredentials: credentials } = fake;
    const elsewhere = kmsClient({ endpoint, region: 'eu-north-1', credentials });
    expect((await serviceErrorOf(describeMain(elsewhere))).message).toContain('scoped to a valid region');
    elsewhere.destroy();
  });

  it('more than five minutes off is refused, and clients that correct their clock get through', async () => {
    for (const [offMs, sentence] of [
      [6 * MINUTE_MS, /^Signature expired: \d{8}T\d{6}Z is now earlier than/],
      [-6 * MINUTE_MS, /^Signature not yet current: \d{8}T\d{6}Z is still later than/],
    ] as const) {
      const { fake, client } = await startFake({ now: () => Date.now() + offMs });
      const error = await serviceErrorOf(describeMain(client));
      expect(error.name).toBe('InvalidSignatureException');
      expect(error.message).toMatch(sentence);
      await describeMain(clientOf(fake, fake.daemonCredentials, { maxAttempts: 2 }));
    }
    const { client } = await startFake({ now: () => Date.now() + 4 * MINUTE_MS });
    await describeMain(client);
  });
});
