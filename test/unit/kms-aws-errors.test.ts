import { readFileSync } from 'node:fs';
import { createServer as createTcpServer } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { type Clock, systemClock } from '../../src/base/clock.js';
import { type AwsKmsError, awsErrorOf, credentialsErrorOf } from '../../src/kms/aws/errors.js';
import type { KmsErrorKind, WrapContext } from '../../src/kms/provider.js';
import { awsProviders, failureOf, httpServer, hurriedClock, useAwsSettings } from '../support/aws-kms.js';
import { selfSignedCertificate } from '../support/certificates.js';
import { expectNoLeakedSlots, temporaryDirectory } from '../support/key-fixtures.js';
import { hasProgram } from '../support/programs.js';

const ARN = 'arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab';
const context: WrapContext = { volumeUuid: new Uint8Array(16), dekId: 1, exposed: false };
const wrapped = { blob: new Uint8Array(80).fill(1), resolvedKeyId: ARN, keyVersion: '' };
const SETTINGS = {
  AWS_REGION: 'us-east-1',
  AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
  AWS_SECRET_ACCESS_KEY: 'secret',
  AWS_CONFIG_FILE: '/dev/null',
  AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
  AWS_EC2_METADATA_DISABLED: 'true',
};

/** What an unwrap says, where KMS is at that endpoint. */
function unwrapAt(endpoint: string, clock: Clock = systemClock): Promise<AwsKmsError> {
  useAwsSettings({ ...SETTINGS, AWS_ENDPOINT_URL_KMS: endpoint });
  const provider = awsProviders({ clock }).open(`awskms:///${ARN}`);
  return failureOf(provider.unwrap(wrapped, context)) as Promise<AwsKmsError>;
}

/** Answers every request so, and counts them. */
async function answering(status: number, body: string, headers: Record<string, string> = {}) {
  const seen = { requests: 0 };
  const url = await httpServer((_request, response) => {
    seen.requests += 1;
    response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1', ...headers });
    response.end(body);
  });
  return { url, seen };
}

function awsError(name: string, message = 'the message of AWS'): string {
  return JSON.stringify({ __type: `com.amazonaws.kms#${name}`, message });
}

describe('an error of AWS KMS', () => {
  beforeEach(expectNoLeakedSlots);

  const table: [name: string, status: number, kind: KmsErrorKind, words: RegExp, requests: number][] = [
    ['AccessDeniedException', 400, 'refused', /no permission/, 1],
    ['DisabledException', 400, 'refused', /disabled, or waits to be deleted/, 1],
    // Its second request asks for the state of the key.
    ['KMSInvalidStateException', 400, 'refused', /state of the key.*waits to be deleted/, 2],
    ['NotFoundException', 400, 'refused', /no such key/, 1],
    ['InvalidKeyUsageException', 400, 'refused', /symmetric encryption/, 1],
    ['InvalidArnException', 400, 'refused', /no key ARN/, 1],
    ['InvalidCiphertextException', 400, 'damaged', /is not what the key wrapped/, 1],
    ['IncorrectKeyException', 400, 'damaged', /another key wrapped/, 1],
    ['KeyUnavailableException', 500, 'unreachable', /cannot use the key right now/, 3],
    ['DependencyTimeoutException', 503, 'unreachable', /a part of its own/, 3],
    ['KMSInternalException', 500, 'unreachable', /internal fault/, 3],
    ['ThrottlingException', 400, 'unreachable', /too many requests/, 3],
    ['LimitExceededException', 400, 'unreachable', /quota/, 3],
    ['ExpiredTokenException', 400, 'refused', /the daemon's AWS credentials have expired/, 1],
    ['UnrecognizedClientException', 400, 'refused', /AWS does not know the daemon's AWS credentials/, 1],
    ['InvalidSignatureException', 400, 'refused', /the daemon's AWS credentials are wrong/, 1],
    ['MissingAuthenticationTokenException', 400, 'refused', /the daemon's AWS credentials are missing/, 1],
    ['IncompleteSignature', 400, 'refused', /the daemon's AWS credentials are wrong/, 1],
    ['OptInRequired', 403, 'refused', /credentials are of an account without KMS/, 1],
    [
      'ValidationException',
      400,
      'unreachable',
      /ValidationException, which is not known here \(status 400\)/,
      1,
    ],
    ['BrandNewException', 403, 'unreachable', /BrandNewException, which is not known here \(status 403\)/, 1],
    ['BrandNewException', 500, 'unreachable', /answers 500/, 3],
  ];
  it.each(table)('%s of status %i is %s', async (name, status, kind, words, requests) => {
    const { url, seen } = await answering(status, awsError(name));
    const failure = await unwrapAt(url);
    expect(failure).toMatchObject({ kind, awsName: name, ofCredentials: /credentials/.test(String(words)) });
    expect(failure.message).toMatch(words);
    expect(failure.message).toContain(name);
    expect(failure.message).toContain('the message of AWS');
    expect(failure.message).toContain(ARN);
    expect(seen.requests).toBe(requests);
  });

  it('puts into its message one printable line of bounded length, whatever AWS says', async () => {
    const { url } = await answering(400, awsError('DisabledException', `\u001b[31m${'x'.repeat(10_000)}`));
    const { message } = await unwrapAt(url);
    expect(message).toMatch(/^[\x20-\x7e]+$/);
    expect(message.length).toBeLessThan(1_000);
  });

  it('is told apart by its name in the header too', async () => {
    const { url } = await answering(400, '{}', { 'x-amzn-errortype': 'DisabledException:http://x/' });
    expect(await unwrapAt(url)).toMatchObject({ kind: 'refused', awsName: 'DisabledException' });
  });
});

describe('KMSInvalidStateException', () => {
  beforeEach(expectNoLeakedSlots);

  /** A KMS that gives it for everything but DescribeKey, to which it answers so. */
  async function stateOf(answer: { status: number; body: string }) {
    const asked: string[] = [];
    const url = await httpServer((request, response) => {
      const operation = String(request.headers['x-amz-target']).replace('TrentService.', '');
      asked.push(operation);
      const describes = operation === 'DescribeKey';
      response.writeHead(describes ? answer.status : 400, { 'content-type': 'application/x-amz-json-1.1' });
      response.end(
        describes ? answer.body : awsError('KMSInvalidStateException', 'the proxy is unreachable'),
      );
    });
    return { failure: await unwrapAt(url), asked };
  }
  const described = (KeyState: string) => ({
    status: 200,
    body: JSON.stringify({ KeyMetadata: { KeyId: 'x', Arn: ARN, KeyState } }),
  });

  it.each([
    ['Enabled', 'unreachable'],
    ['Updating', 'unreachable'],
    ['Disabled', 'refused'],
    ['PendingDeletion', 'refused'],
    ['PendingReplicaDeletion', 'refused'],
    ['PendingImport', 'refused'],
    ['Unavailable', 'refused'],
    ['BrandNewState', 'refused'],
  ] as const)('of a key in the state %s is %s', async (state, kind) => {
    const { failure, asked } = await stateOf(described(state));
    expect(failure.kind).toBe(kind);
    expect(failure.message).toMatch(/KMSInvalidStateException.*the proxy is unreachable/);
    expect(asked).toEqual(['Decrypt', 'DescribeKey']);
  });

  it.each([
    ['not allowed', { status: 400, body: awsError('AccessDeniedException') }],
    ['out of order', { status: 400, body: awsError('BrandNewException') }],
    ['of no use', { status: 200, body: '{}' }],
  ])('is refused where DescribeKey is %s', async (_what, answer) => {
    expect(await stateOf(answer)).toMatchObject({
      failure: { kind: 'refused', awsName: 'KMSInvalidStateException' },
    });
  });
});

describe('what is no answer of AWS KMS', () => {
  beforeEach(expectNoLeakedSlots);

  it.each([
    [503, '<html>try again</html>', /answers 503/],
    [200, '<html>log in first</html>', /sends no JSON/],
    [200, '{"KeyId":"x","Plaintext":"AAAA', /sends no JSON/],
    [200, '', /sends no JSON/],
    [200, '{}', /sends no JSON/],
    [200, '{"Plaintext":null,"KeyId":"x"}', /without one Plaintext/],
    [200, '{"Plaintext":"","KeyId":"x"}', /not base64/],
    [200, '{"Plaintext":"what is this"}', /not base64/],
    [400, '<html>no</html>', /sends no JSON|not known here/],
    [403, '{"message":"a proxy says no"}', /not known here/],
    [302, '', /not known here|no answer of use/],
  ])('a status %i with %j is unreachable', async (status, body, words) => {
    const failure = await unwrapAt((await answering(status, body)).url);
    expect(failure.kind).toBe('unreachable');
    expect(failure.message).toMatch(words);
  });

  it('a connection that is refused is unreachable, after three attempts', async () => {
    const server = createTcpServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    await new Promise((resolve) => server.close(resolve));
    const failure = await unwrapAt(`http://127.0.0.1:${port}`);
    expect(failure.kind).toBe('unreachable');
    expect(failure.message).toMatch(/cannot be reached: the connection is refused/);
  });

  it('a connection that breaks is unreachable, before, in and after the head of an answer', async () => {
    const beginnings = [
      '',
      'HTTP/1.1 200 OK\r\nContent-Le',
      'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"Pla',
    ];
    for (const beginning of beginnings) {
      let connections = 0;
      const server = createTcpServer((socket) => {
        connections += 1;
        socket.on('error', () => undefined);
        socket.once('data', () => socket.end(beginning));
      });
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      const { port } = server.address() as { port: number };
      const failure = await unwrapAt(`http://127.0.0.1:${port}`);
      await new Promise((resolve) => server.close(resolve));
      expect(failure.kind, beginning).toBe('unreachable');
      expect(failure.message, beginning).toMatch(/the connection broke/);
      expect(connections, beginning).toBe(3);
    }
  });

  it('garbage in place of HTTP is unreachable', async () => {
    const server = createTcpServer((socket) => {
      socket.on('error', () => undefined);
      socket.once('data', () => socket.end('SSH-2.0-OpenSSH\r\n'));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void server.close());
    const { port } = server.address() as { port: number };
    expect((await unwrapAt(`http://127.0.0.1:${port}`)).kind).toBe('unreachable');
  });

  it('no answer at all is unreachable, in bounded time', async () => {
    const url = await httpServer(() => undefined);
    const failure = await unwrapAt(url, hurriedClock(20));
    expect(failure.kind).toBe('unreachable');
    expect(failure.message).toMatch(/there is no answer in time/);
  });

  it.skipIf(!hasProgram('openssl'))('a certificate of nobody known is unreachable', async () => {
    const { key, cert } = await selfSignedCertificate(temporaryDirectory());
    const server = createTlsServer({ key: readFileSync(key), cert: readFileSync(cert) });
    server.on('tlsClientError', () => undefined);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void server.close());
    const { port } = server.address() as { port: number };
    vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0');
    const failure = await unwrapAt(`https://127.0.0.1:${port}`);
    expect(failure.kind).toBe('unreachable');
    expect(failure.message).toMatch(/TLS fails, DEPTH_ZERO_SELF_SIGNED_CERT/);
  });

  it('a port that speaks no TLS is unreachable', async () => {
    const { url } = await answering(200, '{}');
    const failure = await unwrapAt(url.replace('http:', 'https:'));
    expect(failure.kind).toBe('unreachable');
    expect(failure.message).toMatch(/TLS fails/);
  });
});

describe('the errors that only a name or a code tells', () => {
  it.each(['ENOTFOUND', 'EAI_AGAIN'])('%s is a name that cannot be resolved', (code) => {
    const failure = awsErrorOf(Object.assign(new Error(`getaddrinfo ${code}`), { code }), 'kms:Decrypt');
    expect(failure).toMatchObject({
      kind: 'unreachable',
      message: expect.stringMatching(/cannot be resolved \(DNS\)/),
    });
  });

  it('an error of the addon comes back as it is', () => {
    const error = Object.assign(new Error('the key was revoked'), { code: 'KEY_REVOKED' });
    expect(awsErrorOf(error, 'kms:Encrypt')).toBe(error);
  });

  it.each(['toString', 'constructor', '__proto__', 'hasOwnProperty'])(
    'a name that every object has, %s, is not known here',
    async (name) => {
      const { url } = await answering(400, awsError(name));
      expect(await unwrapAt(url)).toMatchObject({ kind: 'unreachable', ofCredentials: false });
      const failure = credentialsErrorOf(Object.assign(new Error('why'), { name, code: name }), {
        had: true,
        configured: [],
      });
      expect(failure.kind).toBe('unreachable');
      expect(failure.message).not.toMatch(/native code|object Object/);
    },
  );
});
