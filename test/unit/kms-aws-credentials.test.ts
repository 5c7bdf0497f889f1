/** What is said, and done, where the daemon's AWS credentials cannot be had. */
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { type Clock, systemClock } from '../../src/base/clock.js';
import { KMS_CREDENTIALS_ABANDON_MS } from '../../src/base/limits.js';
import { AwsClients } from '../../src/kms/aws/clients.js';
import { credentialSources } from '../../src/kms/aws/credential-sources.js';
import { type AwsKmsError, credentialsErrorOf } from '../../src/kms/aws/errors.js';
import type { WrapContext } from '../../src/kms/provider.js';
import {
  awsProviders,
  failureOf,
  fakeKms,
  httpServer,
  hurriedClock,
  useAwsSettings,
} from '../support/aws-kms.js';
import { expectNoLeakedSlots, kmsEnvironment, temporaryDirectory } from '../support/key-fixtures.js';

const ARN = 'arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab';
const context: WrapContext = { volumeUuid: new Uint8Array(16), dekId: 1, exposed: false };
const wrapped = { blob: new Uint8Array(80).fill(1), resolvedKeyId: ARN, keyVersion: '' };
const NO_FILES = { AWS_CONFIG_FILE: '/dev/null', AWS_SHARED_CREDENTIALS_FILE: '/dev/null' };
const NO_METADATA = { AWS_EC2_METADATA_DISABLED: 'true' };

/** What an unwrap says with these settings; no KMS is there. */
function unwrapWith(settings: Record<string, string>, clock: Clock = systemClock): Promise<AwsKmsError> {
  useAwsSettings({
    AWS_REGION: 'us-east-1',
    AWS_ENDPOINT_URL_KMS: 'http://127.0.0.1:1',
    ...NO_FILES,
    ...settings,
  });
  const provider = awsProviders({ clock }).open(`awskms:///${ARN}`);
  return failureOf(provider.unwrap(wrapped, context)) as Promise<AwsKmsError>;
}

async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}

const SERVERS = {
  'answers 503': () => httpServer((_request, response) => void response.writeHead(503).end('busy')),
  'refuses the connection': async () => `http://127.0.0.1:${await closedPort()}`,
  hangs: () => httpServer(() => undefined),
} as const;

/** Of an STS that answers so. */
async function withSts(status: number, code: string): Promise<Record<string, string>> {
  const url = await httpServer((request, response) => {
    request.resume();
    response.writeHead(status, { 'content-type': 'text/xml' });
    response.end(
      `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>` +
        `<Code>${code}</Code><Message>why</Message></Error><RequestId>x</RequestId></ErrorResponse>`,
    );
  });
  const token = join(temporaryDirectory(), 'token');
  writeFileSync(token, 'x.y.z');
  const role = { AWS_WEB_IDENTITY_TOKEN_FILE: token, AWS_ROLE_ARN: 'arn:aws:iam::111122223333:role/x' };
  return { ...NO_METADATA, ...role, AWS_ENDPOINT_URL_STS: url };
}

function configFile(text: string): Record<string, string> {
  const path = join(temporaryDirectory(), 'config');
  writeFileSync(path, text);
  return { AWS_CONFIG_FILE: path };
}

/** Settings of the fake, but for the credentials, which are returned apart. */
async function kmsWithoutCredentials() {
  const { kms } = await fakeKms();
  const { AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...settings } = kms.environment();
  const pair = { AccessKeyId: AWS_ACCESS_KEY_ID!, SecretAccessKey: AWS_SECRET_ACCESS_KEY! };
  return { kms, pair, settings: { ...settings, ...NO_FILES } };
}

describe('an outage of what gives the credentials', () => {
  beforeEach(expectNoLeakedSlots);

  for (const [what, server] of Object.entries(SERVERS)) {
    it(`is unreachable: the credentials of a container, where it ${what}`, async () => {
      const url = `${await server()}/credentials`;
      const failure = await unwrapWith({ AWS_CONTAINER_CREDENTIALS_FULL_URI: url }, hurriedClock(2));
      expect(failure).toMatchObject({ kind: 'unreachable', ofCredentials: false });
      expect(failure.message).toMatch(/what gives the daemon's AWS credentials cannot be reached/);
    });

    it(`is unreachable: the instance metadata, where it ${what}`, async () => {
      const failure = await unwrapWith({ AWS_EC2_METADATA_SERVICE_ENDPOINT: await server() });
      expect(failure).toMatchObject({ kind: 'unreachable', ofCredentials: false });
      expect(failure.message).toMatch(/what gives the daemon's AWS credentials cannot be reached/);
    });
  }

  it.each([
    [400, 'Throttling'],
    [429, 'ThrottlingException'],
    [400, 'IDPCommunicationError'],
    [500, 'InternalFailure'],
    [503, 'ServiceUnavailable'],
    [400, 'BrandNewError'],
  ])('is unreachable: STS that answers %i %s', async (status, code) => {
    const failure = await unwrapWith(await withSts(status, code));
    expect(failure).toMatchObject({ kind: 'unreachable', ofCredentials: false });
  });

  it('is unreachable: a token file that is not there', async () => {
    const settings = await withSts(200, 'Unused');
    const failure = await unwrapWith({ ...settings, AWS_WEB_IDENTITY_TOKEN_FILE: '/nonexistent/token' });
    expect(failure.kind).toBe('unreachable');
  });

  it('is unreachable: a program that fails', async () => {
    const failure = await unwrapWith({
      ...NO_METADATA,
      ...configFile('[default]\ncredential_process = /bin/false\n'),
    });
    expect(failure).toMatchObject({
      kind: 'unreachable',
      message: expect.stringMatching(/credential_process in /),
    });
  });

  it('is unreachable where credentials were there before and none are given any more', async () => {
    const { kms, pair, settings } = await kmsWithoutCredentials();
    const lines = `aws_access_key_id = ${pair.AccessKeyId}\naws_secret_access_key = ${pair.SecretAccessKey}\n`;
    const { AWS_CONFIG_FILE: file } = configFile(`[default]\n${lines}`);
    useAwsSettings({ ...settings, AWS_SHARED_CREDENTIALS_FILE: file });
    const providers = awsProviders();
    await providers.open(`awskms:///${kms.createKey().arn}`).describe();
    writeFileSync(file, '');
    // The client of another region has credentials of its own.
    const failure = await failureOf(
      providers.open(`awskms:///${ARN.replace('us-east-1', 'eu-west-1')}`).describe(),
    );
    expect(failure).toMatchObject({
      kind: 'unreachable',
      message: expect.stringMatching(/credentials cannot be reached/),
    });
  });

  it('while they are renewed is unreachable, and over once they are given again', async () => {
    const { kms, pair, settings } = await kmsWithoutCredentials();
    let down = false;
    const url = await httpServer((_request, response) => {
      if (down) return void response.writeHead(503).end();
      const Expiration = new Date(Date.now() + 1_500).toISOString();
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ ...pair, Token: '', Expiration }));
    });
    useAwsSettings({ ...settings, AWS_CONTAINER_CREDENTIALS_FULL_URI: url });
    const provider = awsProviders().open(`awskms:///${kms.createKey().arn}`);
    const kind = (): Promise<string> =>
      provider.describe().then(
        () => 'ok',
        (error: AwsKmsError) => error.kind,
      );
    expect(await kind()).toBe('ok');
    down = true;
    await expect.poll(kind, { timeout: 30_000 }).toBe('unreachable');
    down = false;
    await expect.poll(kind, { timeout: 30_000 }).toBe('ok');
  }, 90_000);
});

describe('credentials that are refused', () => {
  beforeEach(expectNoLeakedSlots);

  it.each([
    'AccessDenied',
    'ExpiredTokenException',
    'ExpiredToken',
    'InvalidIdentityToken',
    'InvalidClientTokenId',
    'IDPRejectedClaim',
  ])('count as refused: STS says %s', async (code) => {
    const failure = await unwrapWith(await withSts(400, code));
    expect(failure).toMatchObject({ kind: 'refused', ofCredentials: true });
  });

  it.each([
    'The SSO session associated with this profile has expired. To refresh this SSO session run aws sso login',
    "Token is expired. To refresh this SSO session run 'aws sso login'",
    'UnauthorizedException: Session token not found or invalid',
  ])('count as refused: %s', (message) => {
    const error = Object.assign(new Error(message), { name: 'CredentialsProviderError', tryNextLink: false });
    expect(credentialsErrorOf(error, { had: true, configured: ['sso_session'] }).kind).toBe('refused');
  });

  it('count as refused where none were ever given and nobody is there to ask', async () => {
    const failure = await unwrapWith(NO_METADATA);
    expect(failure).toMatchObject({ kind: 'refused', ofCredentials: true });
    expect(failure.message).toMatch(/the daemon's AWS credentials are missing/);
  });

  it.each([
    [false, ['a role'], 'unreachable'],
    [true, [], 'unreachable'],
    [false, [], 'refused'],
  ] as const)('that had been there (%s), with %j to ask, are %s', (had, configured, kind) => {
    const error = Object.assign(new Error('none'), { name: 'CredentialsProviderError', tryNextLink: false });
    expect(credentialsErrorOf(error, { had, configured }).kind).toBe(kind);
  });
});

describe('who can be asked for credentials', () => {
  it('is nobody where all there is are texts', async () => {
    const text = '[default]\naws_access_key_id = a\naws_secret_access_key = b\n# role_arn = x\n';
    expect(await credentialSources({ ...NO_METADATA, ...NO_FILES, ...configFile(text) })).toEqual([]);
    const missing = { AWS_CONFIG_FILE: '/nonexistent/a', AWS_SHARED_CREDENTIALS_FILE: '/nonexistent/b' };
    expect(await credentialSources({ ...NO_METADATA, ...missing })).toEqual([]);
  });

  it.each(['role_arn', 'credential_process', 'credential_source', 'web_identity_token_file', 'sso_session'])(
    'is who a profile names by %s, in either file',
    async (setting) => {
      const { AWS_CONFIG_FILE: path } = configFile(`[profile other]\n  ${setting} = x\n`);
      for (const name of ['AWS_CONFIG_FILE', 'AWS_SHARED_CREDENTIALS_FILE']) {
        const sources = await credentialSources({ ...NO_METADATA, ...NO_FILES, [name]: path });
        expect(sources).toEqual([`${setting} in ${path}`]);
      }
    },
  );

  it('may be named in a file that cannot be read', async () => {
    const sources = await credentialSources({
      ...NO_METADATA,
      ...NO_FILES,
      AWS_CONFIG_FILE: temporaryDirectory(),
    });
    expect(sources).toHaveLength(1);
  });

  it('is the machine, unless a container comes first or that is off', async () => {
    expect(await credentialSources(NO_FILES)).toEqual([expect.stringContaining('instance metadata')]);
    const container = { AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: '/x' };
    expect(await credentialSources({ ...NO_FILES, ...container })).toEqual([
      'the credentials of the container',
    ]);
  });
});

describe('a source of credentials that never answers', () => {
  beforeEach(expectNoLeakedSlots);

  it('is given up soon, and said to be what hangs', async () => {
    const url = await httpServer(() => undefined);
    const failure = await unwrapWith({ AWS_CONTAINER_CREDENTIALS_FULL_URI: url }, hurriedClock(20));
    expect(failure).toMatchObject({
      kind: 'unreachable',
      message: expect.stringMatching(/credentials cannot be reached: there is no answer in 3000 ms/),
    });
  });

  it('is asked anew after a while: an endpoint', async () => {
    const { kms, pair, settings } = await kmsWithoutCredentials();
    let asked = 0;
    const url = await httpServer((_request, response) => {
      asked += 1;
      if (asked === 1) return;
      const Expiration = new Date(Date.now() + 3_600_000).toISOString();
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ ...pair, Token: '', Expiration }));
    });
    useAwsSettings({ ...settings, AWS_CONTAINER_CREDENTIALS_FULL_URI: url });
    const provider = awsProviders({ clock: hurriedClock(15) }).open(`awskms:///${kms.createKey().arn}`);
    expect(await failureOf(provider.describe())).toMatchObject({ kind: 'unreachable' });
    const works = (): Promise<boolean> =>
      provider.describe().then(
        () => true,
        () => false,
      );
    await expect.poll(works, { timeout: 30_000 }).toBe(true);
  }, 60_000);

  it('is asked anew after a while: a program; one that is only slow is not started twice', async () => {
    const { kms, pair, settings } = await kmsWithoutCredentials();
    const directory = temporaryDirectory();
    const program = join(directory, 'program');
    const answer = JSON.stringify({ Version: 1, ...pair });
    const starts = join(directory, 'starts');
    writeFileSync(program, `#!/bin/sh\necho x >> ${starts}\nsleep 1\necho '${answer}'\n`);
    chmodSync(program, 0o700);
    useAwsSettings({ ...settings, ...configFile(`[default]\ncredential_process = ${program}\n`) });
    // A deadline of a tenth of a second, and a while that never ends.
    const clock: Clock = {
      ...systemClock,
      setTimeout: (fn, ms) =>
        systemClock.setTimeout(fn, ms < KMS_CREDENTIALS_ABANDON_MS ? ms / 30 : ms * 100),
    };
    const provider = awsProviders({ clock }).open(`awskms:///${kms.createKey().arn}`);
    expect(await failureOf(provider.describe())).toMatchObject({ kind: 'unreachable' });
    await expect
      .poll(
        () =>
          provider.describe().then(
            () => 'ok',
            (error: AwsKmsError) => error.awsName,
          ),
        { timeout: 30_000 },
      )
      .not.toBe('CredentialsOutage');
    expect(readFileSync(starts, 'utf8')).toBe('x\n');
  }, 60_000);
});

describe('the dry run without credentials', () => {
  it('says what mends it', async () => {
    const { settings } = await kmsWithoutCredentials();
    const url = await SERVERS['answers 503']();
    const metadata = { AWS_EC2_METADATA_DISABLED: 'false', AWS_EC2_METADATA_SERVICE_ENDPOINT: url };
    useAwsSettings({ ...settings, ...metadata });
    const { steps } = await awsProviders().open(`awskms:///${ARN}`).probe();
    expect(steps[0]).toMatchObject({
      outcome: 'failed',
      error: expect.stringContaining('the instance metadata'),
      fix: expect.stringContaining('make what gives the daemon its AWS credentials answer'),
    });
  });
});

describe('credentials that run out while a request is signed', () => {
  it('are unreachable: they were there when it began', async () => {
    useAwsSettings({ AWS_ACCESS_KEY_ID: 'a', AWS_SECRET_ACCESS_KEY: 'b', ...NO_METADATA, ...NO_FILES });
    const clients = new AwsClients(kmsEnvironment(temporaryDirectory()));
    const none = Object.assign(new Error('none'), { name: 'CredentialsProviderError', tryNextLink: false });
    const failure = await failureOf(clients.call('us-east-1', 'kms:Decrypt', () => Promise.reject(none)));
    expect(failure).toMatchObject({ kind: 'unreachable', awsName: 'CredentialsOutage' });
    clients.close();
  });
});

describe('the AWS SDK', () => {
  it('that could not be loaded is loaded again', async () => {
    useAwsSettings({
      AWS_REGION: 'us-east-1',
      AWS_ACCESS_KEY_ID: 'a',
      AWS_SECRET_ACCESS_KEY: 'b',
      ...NO_FILES,
    });
    let failures = 0;
    const clients = new AwsClients(kmsEnvironment(temporaryDirectory()), () => {
      if (failures === 2) return import('@aws-sdk/client-kms');
      failures += 1;
      return Promise.reject(Object.assign(new Error('too many open files'), { code: 'EMFILE' }));
    });
    for (let i = 0; i < 2; i++) expect((await failureOf(clients.defaultRegion())).kind).toBe('unreachable');
    expect(await clients.defaultRegion()).toBe('us-east-1');
    clients.close();
  });
});
