/** Faults on command, outages, and the log. */
import {
  DecryptCommand,
  DescribeKeyCommand,
  EncryptCommand,
  type KMSClient,
  ReEncryptCommand,
} from '@aws-sdk/client-kms';
import { describe, expect, it, vi } from 'vitest';
import { FAULT_KINDS } from '../support/kms-fake/faults.js';
import type { KmsFake } from '../support/kms-fake/kms-fake.js';
import { CONTEXT, clientOf, DEK, startFake, unwrap, wrap } from './fake-and-client.js';

interface Failure {
  readonly name: string;
  readonly code: string | undefined;
  readonly status: number | undefined;
}

/** What a client sees of a call that fails. */
async function failureOf(call: Promise<unknown>): Promise<Failure> {
  const error = await call.then(
    () => new Error('the call succeeded'),
    (reason: unknown) => reason as Error & { code?: string; $metadata?: { httpStatusCode?: number } },
  );
  const { code, $metadata } = error as { code?: string; $metadata?: { httpStatusCode?: number } };
  return { name: error.name, code, status: $metadata?.httpStatusCode };
}

describe('a fault', () => {
  it.each([
    ['throttling', 'ThrottlingException', 400],
    ['internal', 'KMSInternalException', 500],
    ['dependency-timeout', 'DependencyTimeoutException', 500],
    ['key-unavailable', 'KeyUnavailableException', 500],
  ] as const)('%s is the error %s with status %i', async (kind, name, status) => {
    const { fake, client } = await startFake();
    fake.inject(kind);
    expect(await failureOf(wrap(client))).toEqual({ name, code: undefined, status });
    expect(fake.requests[0]).toMatchObject({ operation: 'Encrypt', fault: kind, result: name });
  });

  it('unavailable is status 503 and a page, html-page the same with status 200', async () => {
    const { fake, client } = await startFake();
    fake.inject('unavailable', { times: 1 });
    expect(await failureOf(wrap(client))).toMatchObject({ name: 'SyntaxError', status: 503 });
    fake.inject('html-page', { times: 1 });
    expect(await failureOf(wrap(client))).toMatchObject({ name: 'SyntaxError', status: 200 });
    await wrap(client);
  });

  it('truncated is half of the JSON, and well-formed HTTP', async () => {
    const { fake, client } = await startFake();
    fake.inject('truncated');
    expect(await failureOf(wrap(client))).toMatchObject({ name: 'SyntaxError', status: 200 });
    expect(fake.requests[0]).toMatchObject({ fault: 'truncated', result: 'ok' });
  });

  it('torn is half of the bytes promised, and then a reset', async () => {
    const { fake, client } = await startFake();
    fake.inject('torn');
    const { name, code } = await failureOf(wrap(client));
    expect([name, code]).toEqual(['Error', 'ECONNRESET']);
    expect(fake.requests[0]).toMatchObject({ fault: 'torn', result: 'ok' });
    const response = fetch(fake.endpoint, { method: 'POST', headers: { 'x-amz-target': 'any' }, body: '{}' });
    await expect(response.then((answer) => answer.text())).rejects.toThrow();
  });

  it('content-type is a sound answer under another name', async () => {
    const { fake } = await startFake();
    fake.inject('content-type');
    const answer = await fetch(fake.endpoint, { method: 'POST', body: '{}' });
    expect(answer.headers.get('content-type')).toBe('text/plain');
    expect(await answer.json()).toEqual({ __type: 'UnknownOperationException' });
  });

  it('reset is no answer', async () => {
    const { fake, client } = await startFake();
    fake.inject('reset');
    expect(await failureOf(wrap(client))).toMatchObject({ code: 'ECONNRESET' });
    expect(fake.requests[0]).toMatchObject({ fault: 'reset', result: 'no answer' });
  });

  it('hang is no answer for as long as the client waits, or until the fake stops', async () => {
    const { fake, client } = await startFake();
    fake.inject('hang');
    const giveUp = new AbortController();
    const first = failureOf(
      client.send(new DescribeKeyCommand({ KeyId: 'alias/main' }), { abortSignal: giveUp.signal }),
    );
    const second = failureOf(wrap(client));
    await vi.waitFor(() => expect(fake.requests).toHaveLength(2), 30_000);
    giveUp.abort();
    expect((await first).name).toBe('AbortError');
    await fake.stop();
    expect((await second).code).toBe('ECONNRESET');
    expect(fake.requests.map(({ result }) => result)).toEqual(['no answer', 'no answer']);
  });

  it('slow is the right answer, late', async () => {
    const { fake, client } = await startFake();
    fake.inject('slow', { delayMs: 250 });
    const started = performance.now();
    await wrap(client);
    expect(performance.now() - started).toBeGreaterThan(245);
  });

  it('hits the operations and as many requests as it is told', async () => {
    const { fake, client } = await startFake();
    const blob = await wrap(client);
    fake.inject('throttling', { operations: ['Decrypt', 'ReEncrypt'], times: 2 });
    await wrap(client);
    for (const _ of [1, 2]) {
      expect((await failureOf(unwrap(client, blob))).name).toBe('ThrottlingException');
    }
    expect(await unwrap(client, blob)).toEqual(DEK);
  });

  it('ends when it is cleared, or all are; of several the first injected hits', async () => {
    const { fake, client } = await startFake();
    const clear = fake.inject('internal');
    fake.inject('throttling');
    expect((await failureOf(wrap(client))).name).toBe('KMSInternalException');
    clear();
    expect((await failureOf(wrap(client))).name).toBe('ThrottlingException');
    fake.clearFaults();
    await wrap(client);
  });

  it('of every kind is got over by a client that tries again', async () => {
    const { fake } = await startFake();
    const patient = clientOf(fake, fake.daemonCredentials, {
      maxAttempts: 3,
      requestHandler: { requestTimeout: 5_000, throwOnRequestTimeout: true },
    });
    // The client takes a page or half an answer of status 200 for the answer, and does not ask again.
    const final = ['html-page', 'truncated'];
    for (const kind of FAULT_KINDS.filter((one) => !final.includes(one))) {
      fake.inject(kind, { times: 1 });
      const outcome = await wrap(patient).then(
        () => 'ok',
        (error: Error) => error.name,
      );
      expect([kind, outcome]).toEqual([kind, 'ok']);
    }
  });
});

describe('a fake that stops', () => {
  it('breaks connections, refuses new ones, and comes back on the same port with the same keys', async () => {
    const { fake, client } = await startFake();
    const newcomer = clientOf(fake);
    const blob = await wrap(client);
    const { endpoint } = fake;
    await fake.stop();
    expect((await failureOf(unwrap(client, blob))).code).toBe('ECONNRESET');
    expect((await failureOf(unwrap(newcomer, blob))).code).toBe('ECONNREFUSED');
    await fake.start();
    expect(fake.endpoint).toBe(endpoint);
    expect(await unwrap(client, blob)).toEqual(DEK);
    await expect(fake.start()).rejects.toThrow('runs already');
  });
});

describe('the log', () => {
  async function oneOfEach(fake: KmsFake, client: KMSClient): Promise<string[]> {
    const CiphertextBlob = await wrap(client);
    await unwrap(client, CiphertextBlob);
    const moved = await client.send(
      new ReEncryptCommand({
        CiphertextBlob,
        SourceEncryptionContext: CONTEXT,
        DestinationKeyId: 'alias/main',
        DestinationEncryptionContext: { dek: '2' },
      }),
    );
    await failureOf(client.send(new DecryptCommand({ CiphertextBlob, KeyId: 'alias/absent' })));
    await failureOf(client.send(new EncryptCommand({ KeyId: 'alias/main', Plaintext: Buffer.alloc(4097) })));
    return [DEK, CiphertextBlob, moved.CiphertextBlob!, fake.daemonCredentials.secretAccessKey].map(
      (secret) => (typeof secret === 'string' ? secret : Buffer.from(secret).toString('base64')),
    );
  }

  it('has operation, key, context, principal and result of every request, and no secret', async () => {
    const { fake, key, client } = await startFake();
    const secrets = await oneOfEach(fake, client);
    const arn = key.arn;
    expect(fake.requests).toMatchObject([
      { operation: 'Encrypt', key: arn, context: CONTEXT, principal: fake.daemonUser, result: 'ok' },
      { operation: 'Decrypt', key: arn, context: CONTEXT, result: 'ok' },
      {
        operation: 'ReEncrypt',
        key: arn,
        context: CONTEXT,
        destinationKey: arn,
        destinationContext: { dek: '2' },
        result: 'ok',
      },
      { operation: 'Decrypt', key: 'alias/absent', context: {}, result: 'NotFoundException' },
      { operation: 'Encrypt', result: 'ValidationException' },
    ]);
    const text = JSON.stringify(fake.requests);
    for (const secret of secrets) expect(text.includes(secret)).toBe(false);
    fake.clearRequests();
    expect(fake.requests).toEqual([]);
  });
});
