import dns from 'node:dns';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { nullLogger } from '../../src/base/log.js';
import type { WrapContext } from '../../src/kms/provider.js';
import { addon, type KeyHandle } from '../../src/native/addon.js';
import {
  awsProviders,
  failureOf,
  fakeKms,
  httpServer,
  hurriedClock,
  useAwsSettings,
} from '../support/aws-kms.js';
import { expectNoLeakedSlots, temporaryDirectory } from '../support/key-fixtures.js';
import type { KmsFake } from '../support/kms-fake/kms-fake.js';

const context: WrapContext = {
  volumeUuid: new Uint8Array(16).fill(0xab),
  dekId: 7,
  exposed: true,
};
const CONTEXT = {
  'sealbd:volume': 'abababab-abab-abab-abab-abababababab',
  'sealbd:dek': '7',
  'sealbd:exposed': 'true',
};

async function withDek<T>(work: (dek: KeyHandle) => Promise<T>): Promise<T> {
  const dek = addon.keyGenerate();
  try {
    return await work(dek);
  } finally {
    addon.keyRelease(dek);
  }
}

const operations = (kms: KmsFake) => kms.requests.map(({ operation, result }) => `${operation} ${result}`);

describe('a DEK under an awskms: key', () => {
  beforeEach(expectNoLeakedSlots);

  it('is wrapped under the URI, and unwrapped and checked under the ARN that KMS named', async () => {
    const { kms, providers } = await fakeKms();
    const key = kms.createKey({ alias: 'alias/main' });
    const provider = providers.open('awskms:///alias/main');
    await withDek(async (dek) => {
      const wrapped = await provider.wrap(dek, context);
      expect(wrapped).toMatchObject({ resolvedKeyId: key.arn, keyVersion: key.current.id });
      await provider.check(wrapped, context, dek);
    });
    const asked = kms.requests.filter(({ operation }) => operation !== 'DescribeKey');
    expect(asked.map(({ operation, key: used }) => [operation, used])).toEqual([
      ['Encrypt', key.arn],
      ['Decrypt', key.arn],
    ]);
    for (const { context: bound } of asked) expect(bound).toEqual(CONTEXT);
  });

  it('opens with the key that wrapped it after the alias was pointed elsewhere; new wraps follow the alias', async () => {
    const { kms, providers } = await fakeKms();
    const first = kms.createKey({ alias: 'alias/main' });
    const provider = providers.open('awskms:///alias/main');
    await withDek(async (dek) => {
      const wrapped = await provider.wrap(dek, context);
      const second = kms.createKey();
      kms.setAlias('alias/main', second);
      await provider.check(wrapped, context, dek);
      expect((await provider.wrap(dek, context)).resolvedKeyId).toBe(second.arn);
      kms.setState(first, 'Disabled');
      const failure = await failureOf(provider.unwrap(wrapped, context));
      expect(failure).toMatchObject({ kind: 'refused', message: expect.stringContaining(first.arn) });
      expect((await provider.describe()).detail).toBe(`AWS KMS: ${second.arn} is enabled`);
      const { detail } = await provider.describe(wrapped.resolvedKeyId);
      expect(detail).toBe(`AWS KMS: ${first.arn} is disabled`);
      expect((await failureOf(provider.describe('alias/main'))).kind).toBe('damaged');
    });
  });

  it('never opens with a key that the URI does not name, and KMS is not asked', async () => {
    const { kms, providers } = await fakeKms();
    const [own, other] = [kms.createKey(), kms.createKey()];
    await withDek(async (dek) => {
      const foreign = await providers.open(`awskms:///${other.arn}`).wrap(dek, context);
      kms.clearRequests();
      for (const uri of [`awskms:///${own.arn}`, `awskms:///${own.id}`]) {
        const failure = await failureOf(providers.open(uri).unwrap(foreign, context));
        expect(failure).toMatchObject({
          kind: 'damaged',
          message: expect.stringContaining('is not that key'),
        });
      }
      const provider = providers.open(`awskms:///${own.arn}`);
      for (const resolvedKeyId of ['', own.id, 'alias/main', `${own.arn}\n`]) {
        expect((await failureOf(provider.unwrap({ ...foreign, resolvedKeyId }, context))).kind).toBe(
          'damaged',
        );
      }
      for (const blob of [new Uint8Array(0), new Uint8Array(6145)]) {
        const wrapped = { blob, resolvedKeyId: own.arn, keyVersion: '' };
        expect((await failureOf(provider.unwrap(wrapped, context))).kind).toBe('damaged');
      }
      expect(kms.requests).toEqual([]);
    });
  });

  it('that is something else than 32 bytes is damaged', async () => {
    const { kms, providers } = await fakeKms();
    const key = kms.createKey();
    const { EncryptCommand, KMSClient } = await import('@aws-sdk/client-kms');
    const client = new KMSClient({});
    const command = new EncryptCommand({
      KeyId: key.arn,
      Plaintext: Buffer.alloc(31),
      EncryptionContext: CONTEXT,
    });
    const { CiphertextBlob: blob } = await client.send(command);
    client.destroy();
    const wrapped = { blob: blob!, resolvedKeyId: key.arn, keyVersion: '' };
    const failure = await failureOf(providers.open(`awskms:///${key.arn}`).unwrap(wrapped, context));
    expect(failure).toMatchObject({ kind: 'damaged', message: expect.stringContaining('not 32 bytes') });
  });

  it('is wrapped where its version cannot be told', async () => {
    const { kms, providers } = await fakeKms();
    const key = kms.createKey();
    kms.deny(['kms:DescribeKey']);
    const wrapped = await withDek((dek) => providers.open(`awskms:///${key.arn}`).wrap(dek, context));
    expect(wrapped).toMatchObject({ resolvedKeyId: key.arn, keyVersion: '' });
  });

  it('comes through where single answers are torn, throttled or lost', async () => {
    const { kms, providers } = await fakeKms();
    const key = kms.createKey();
    const provider = providers.open(`awskms:///${key.arn}`);
    await withDek(async (dek) => {
      for (const fault of ['torn', 'reset', 'throttling', 'internal', 'unavailable'] as const) {
        kms.inject(fault, { operations: ['Encrypt'], times: 1 });
        kms.inject(fault, { operations: ['Decrypt'], times: 1 });
        await provider.check(await provider.wrap(dek, context), context, dek);
      }
    });
  });

  it.each(['truncated', 'html-page'] as const)(
    'is unreachable behind an answer that is %s',
    async (fault) => {
      const { kms, providers } = await fakeKms();
      const provider = providers.open(`awskms:///${kms.createKey().arn}`);
      await withDek(async (dek) => {
        const wrapped = await provider.wrap(dek, context);
        kms.inject(fault);
        expect((await failureOf(provider.unwrap(wrapped, context))).kind).toBe('unreachable');
        expect((await failureOf(provider.wrap(dek, context))).kind).toBe('unreachable');
      });
    },
  );

  it.each(['KMSInvalidStateException', 'DisabledException'] as const)(
    'is refused while the key waits to be deleted, as %s',
    async (type) => {
      const { kms, providers } = await fakeKms();
      const key = kms.createKey();
      kms.pendingDeletionError = type;
      const provider = providers.open(`awskms:///${key.arn}`);
      await withDek(async (dek) => {
        const wrapped = await provider.wrap(dek, context);
        kms.setState(key, 'PendingDeletion');
        const failure = await failureOf(provider.check(wrapped, context, dek));
        expect(failure).toMatchObject({ kind: 'refused', awsName: type });
      });
      expect((await provider.describe()).detail).toMatch(/waits to be deleted, on \d{4}-\d\d-\d\dT/);
    },
  );

  it('fails as unreachable when the providers are closed under it', async () => {
    const { kms, providers } = await fakeKms();
    const provider = providers.open(`awskms:///${kms.createKey().arn}`);
    kms.inject('hang');
    await withDek(async (dek) => {
      const failure = failureOf(provider.wrap(dek, context));
      await expect.poll(() => kms.requests.length, { timeout: 30_000 }).toBeGreaterThan(0);
      providers.close();
      expect(await failure).toMatchObject({
        kind: 'unreachable',
        message: expect.stringContaining('closed'),
      });
    });
  });
});

describe('a rewrap under an awskms: key', () => {
  beforeEach(expectNoLeakedSlots);

  async function twoKeys() {
    const { kms, providers } = await fakeKms();
    const from = providers.open(`awskms:///${kms.createKey().arn}`);
    const to = providers.open(`awskms:///${kms.createKey().arn}`);
    return { kms, from, to };
  }

  it('happens inside KMS, from one context to another, and tells the version', async () => {
    const { kms, from, to } = await twoKeys();
    await withDek(async (dek) => {
      const wrapped = await from.wrap(dek, context);
      kms.clearRequests();
      const target = { ...context, exposed: false };
      const moved = await to.rewrap(wrapped, from, context, target);
      expect(operations(kms)).toEqual(['ReEncrypt ok']);
      expect(moved.keyVersion).toBe(kms.key(moved.resolvedKeyId).current.id);
      await to.check(moved, target, dek);
      expect((await failureOf(to.check(moved, context, dek))).kind).toBe('damaged');
    });
  });

  it('takes the newest material of the same key', async () => {
    const { kms, from } = await twoKeys();
    await withDek(async (dek) => {
      const wrapped = await from.wrap(dek, context);
      kms.rotate(wrapped.resolvedKeyId);
      const again = await from.rewrap(wrapped, from, context, context);
      expect(again.resolvedKeyId).toBe(wrapped.resolvedKeyId);
      expect(again.keyVersion).not.toBe(wrapped.keyVersion);
      await from.check(again, context, dek);
    });
  });

  it.each(['kms:ReEncryptFrom', 'kms:ReEncryptTo'])(
    'goes through this process without %s',
    async (action) => {
      const { kms, from, to } = await twoKeys();
      kms.deny([action]);
      await withDek(async (dek) => {
        const wrapped = await from.wrap(dek, context);
        kms.clearRequests();
        await to.check(await to.rewrap(wrapped, from, context, context), context, dek);
        expect(operations(kms).slice(0, 3)).toEqual([
          'ReEncrypt AccessDeniedException',
          'Decrypt ok',
          'Encrypt ok',
        ]);
      });
    },
  );

  it('fails as the key fails, and does not go around that', async () => {
    const { kms, from, to } = await twoKeys();
    const wrapped = await withDek((dek) => from.wrap(dek, context));
    kms.clearRequests();
    kms.setState(wrapped.resolvedKeyId, 'Disabled');
    expect((await failureOf(to.rewrap(wrapped, from, context, context))).kind).toBe('refused');
    expect(operations(kms)).toEqual(['ReEncrypt DisabledException']);
  });

  it('takes nothing from a key that the URI does not name', async () => {
    const { kms, from, to } = await twoKeys();
    const wrapped = await withDek((dek) => to.wrap(dek, context));
    kms.clearRequests();
    expect((await failureOf(to.rewrap(wrapped, from, context, context))).kind).toBe('damaged');
    expect(kms.requests).toEqual([]);
  });
});

describe('the region and the endpoint', () => {
  beforeEach(expectNoLeakedSlots);

  /** Where the request went, and for which region it was signed. */
  async function regionOf(uri: string, settings: Record<string, string>, arn?: string): Promise<string> {
    let authorization = '';
    const url = await httpServer((request, response) => {
      authorization = request.headers.authorization ?? '';
      response.writeHead(400, { 'content-type': 'application/x-amz-json-1.1' });
      response.end('{"__type":"DisabledException"}');
    });
    useAwsSettings({
      AWS_ACCESS_KEY_ID: 'AKID',
      AWS_SECRET_ACCESS_KEY: 'secret',
      AWS_CONFIG_FILE: '/dev/null',
      AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
      AWS_ENDPOINT_URL_KMS: url,
      ...settings,
    });
    const provider = awsProviders().open(uri);
    const stored = { blob: new Uint8Array(80), resolvedKeyId: arn ?? '', keyVersion: '' };
    const failure = await failureOf(
      arn === undefined ? provider.describe() : provider.unwrap(stored, context),
    );
    expect(failure.message).toContain('DisabledException');
    return /Credential=AKID\/\d+\/([^/]+)\/kms\//.exec(authorization)![1];
  }

  const key = (region: string) =>
    `arn:aws:kms:${region}:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab`;

  it('of an ARN wins over that of the settings', async () => {
    expect(await regionOf(`awskms:///${key('eu-central-1')}`, { AWS_REGION: 'us-east-1' })).toBe(
      'eu-central-1',
    );
  });

  it('of the settings counts for a key id and an alias', async () => {
    expect(await regionOf('awskms:///alias/a', { AWS_REGION: 'ap-south-1' })).toBe('ap-south-1');
  });

  it('of the stored ARN counts for what an alias wrapped before the settings changed', async () => {
    const region = await regionOf('awskms:///alias/a', { AWS_REGION: 'us-east-1' }, key('eu-west-1'));
    expect(region).toBe('eu-west-1');
  });

  it('can come from a profile, and so can the credentials', async () => {
    const directory = temporaryDirectory();
    const config = join(directory, 'config');
    writeFileSync(config, '[profile volumes]\nregion = sa-east-1\n');
    const settings = { AWS_PROFILE: 'volumes', AWS_CONFIG_FILE: config };
    const credentials = join(directory, 'credentials');
    writeFileSync(credentials, '[volumes]\naws_access_key_id = AKID\naws_secret_access_key = s\n');
    const region = await regionOf('awskms:///alias/a', {
      ...settings,
      AWS_SHARED_CREDENTIALS_FILE: credentials,
    });
    expect(region).toBe('sa-east-1');
  });

  it('that nobody gave is said to be missing', async () => {
    useAwsSettings({
      AWS_ACCESS_KEY_ID: 'a',
      AWS_SECRET_ACCESS_KEY: 'b',
      AWS_CONFIG_FILE: '/dev/null',
      AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
    });
    const failure = await failureOf(awsProviders().open('awskms:///alias/a').describe());
    expect(failure).toMatchObject({
      kind: 'unreachable',
      message: expect.stringContaining('set AWS_REGION'),
    });
  });
});

describe("the daemon's credentials", () => {
  beforeEach(expectNoLeakedSlots);

  it('that are missing are refused, and named', async () => {
    const { kms, providers } = await fakeKms();
    const key = kms.createKey();
    const { AWS_ACCESS_KEY_ID: _id, AWS_SECRET_ACCESS_KEY: _secret, ...settings } = kms.environment();
    useAwsSettings(settings);
    const failure = await failureOf(providers.open(`awskms:///${key.arn}`).describe());
    expect(failure).toMatchObject({
      kind: 'refused',
      message: expect.stringContaining("the daemon's AWS credentials are missing"),
    });
    expect(kms.requests).toEqual([]);
  });

  it('that expired, or that AWS took back, are refused, and named; with others it goes on without a restart', async () => {
    const { kms, providers } = await fakeKms();
    const provider = providers.open(`awskms:///${kms.createKey().arn}`);
    const file = join(temporaryDirectory(), 'credentials');
    const use = ({
      accessKeyId,
      secretAccessKey,
      sessionToken,
    }: ReturnType<KmsFake['addAccessKey']>): void => {
      const token = sessionToken === undefined ? '' : `aws_session_token = ${sessionToken}\n`;
      const pair = `aws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secretAccessKey}\n`;
      writeFileSync(file, `[default]\n${pair}${token}`);
    };
    const { AWS_ACCESS_KEY_ID: _id, AWS_SECRET_ACCESS_KEY: _secret, ...settings } = kms.environment();
    useAwsSettings({ ...settings, AWS_SHARED_CREDENTIALS_FILE: file });

    const first = kms.addAccessKey({ session: true });
    use(first);
    await provider.describe();
    kms.expireAccessKey(first.accessKeyId);
    expect(await failureOf(provider.describe())).toMatchObject({
      kind: 'refused',
      awsName: 'ExpiredTokenException',
      message: expect.stringContaining("the daemon's AWS credentials have expired"),
    });
    const second = kms.addAccessKey();
    use(second);
    await provider.describe();
    kms.removeAccessKey(second.accessKeyId);
    expect(await failureOf(provider.describe())).toMatchObject({
      kind: 'refused',
      message: expect.stringContaining("AWS does not know the daemon's AWS credentials"),
    });
    use({ ...kms.addAccessKey(), secretAccessKey: 'another' });
    await failureOf(provider.describe());
    expect(await failureOf(provider.describe())).toMatchObject({
      kind: 'refused',
      message: expect.stringContaining("the daemon's AWS credentials are wrong"),
    });
  });

  it('that the machine would have to give, and its metadata service hangs, do not hang the check', async () => {
    const { kms, providers } = await fakeKms({ clock: hurriedClock(4) });
    const asked: string[] = [];
    const metadata = await httpServer((request) => void asked.push(request.url ?? ''));
    const { AWS_ACCESS_KEY_ID: _id, AWS_SECRET_ACCESS_KEY: _secret, ...settings } = kms.environment();
    useAwsSettings({
      ...settings,
      AWS_EC2_METADATA_DISABLED: 'false',
      AWS_EC2_METADATA_SERVICE_ENDPOINT: metadata,
    });
    const failure = await failureOf(providers.open(`awskms:///${kms.createKey().arn}`).describe());
    expect(['refused', 'unreachable']).toContain(failure.kind);
    expect(asked.length).toBeGreaterThan(0);
  });
});

describe('the dry run of an awskms: key', () => {
  beforeEach(expectNoLeakedSlots);

  async function probed(prepare: (kms: KmsFake, arn: string) => void, name?: string) {
    const { kms, providers } = await fakeKms();
    const key = kms.createKey({ alias: 'alias/main' });
    prepare(kms, key.arn);
    const report = await providers.open(`awskms:///${name ?? key.arn}`).probe();
    const outcomes = Object.fromEntries(report.steps.map(({ permission, outcome }) => [permission, outcome]));
    return { kms, key, report, outcomes };
  }

  it('uses every permission once, on a DEK of its own, and no other permission', async () => {
    const { kms, key, report, outcomes } = await probed(() => undefined);
    expect(outcomes).toEqual({
      'kms:DescribeKey': 'ok',
      'kms:Encrypt': 'ok',
      'kms:Decrypt': 'ok',
      'kms:ReEncryptFrom': 'ok',
      'kms:ReEncryptTo': 'ok',
    });
    expect(report).toMatchObject({ resolvedKeyId: key.arn, keyVersion: key.current.id, warnings: [] });
    expect(operations(kms).sort()).toEqual(['Decrypt ok', 'DescribeKey ok', 'Encrypt ok', 'ReEncrypt ok']);
  });

  it.each([
    ['kms:DescribeKey', ['kms:DescribeKey'], []],
    ['kms:Encrypt', ['kms:Encrypt'], ['kms:Decrypt', 'kms:ReEncryptFrom', 'kms:ReEncryptTo']],
    ['kms:Decrypt', ['kms:Decrypt'], []],
    ['kms:ReEncryptFrom', ['kms:ReEncryptFrom'], ['kms:ReEncryptTo']],
    ['kms:ReEncryptTo', ['kms:ReEncryptTo'], ['kms:ReEncryptFrom']],
  ])('names the missing %s, and the statement that grants it', async (action, denied, skipped) => {
    const { kms, key, report } = await probed((fake) => fake.deny([action]));
    for (const { permission, outcome, error, fix } of report.steps) {
      const expected = denied.includes(permission)
        ? 'denied'
        : skipped.includes(permission)
          ? 'skipped'
          : 'ok';
      expect([permission, outcome]).toEqual([permission, expected]);
      if (expected === 'ok') continue;
      expect(error).toBeTruthy();
      if (expected === 'skipped') continue;
      const inKey = {
        Effect: 'Allow',
        Principal: { AWS: kms.daemonUser },
        Action: permission,
        Resource: '*',
      };
      expect(fix).toContain(JSON.stringify(inKey));
      expect(fix).toContain(JSON.stringify({ Effect: 'Allow', Action: permission, Resource: key.arn }));
    }
  });

  it('of a key that waits to be deleted says so, when, and what brings it back', async () => {
    const { report, outcomes } = await probed((kms, arn) => kms.setState(arn, 'PendingDeletion'));
    expect(outcomes).toMatchObject({
      'kms:DescribeKey': 'ok',
      'kms:Encrypt': 'failed',
      'kms:Decrypt': 'skipped',
    });
    expect(report.steps[1].fix).toMatch(
      /aws kms cancel-key-deletion --key-id arn:aws:kms:\S+ --region us-east-1/,
    );
    expect(report.warnings).toEqual([expect.stringMatching(/waits to be deleted, on \d{4}-/)]);
  });

  it('of a key that is not there, and without credentials, says what to do', async () => {
    const missing = await probed(() => undefined, 'alias/none');
    expect(missing.outcomes).toMatchObject({ 'kms:DescribeKey': 'failed', 'kms:Encrypt': 'failed' });
    expect(missing.report.steps[0].fix).toMatch(/name a key that exists/);
    const unknown = await probed((kms) => kms.removeAccessKey(kms.daemonCredentials.accessKeyId));
    expect(unknown.report.steps[0].fix).toMatch(/give the daemon valid AWS credentials/);
  });

  it('warns of an alias', async () => {
    const { report } = await probed(() => undefined, 'alias/main');
    expect(report.warnings).toEqual([expect.stringMatching(/an alias can be pointed at another key/)]);
  });

  it('warns where DEKs cross the network in the clear, and does nothing of the sort unasked', async () => {
    const { kms, providers } = await fakeKms({ insecure: true });
    const key = kms.createKey();
    const lookup = vi.spyOn(dns, 'lookup').mockImplementation(((
      _host: string,
      options: object,
      done: unknown,
    ) => {
      const call = done as (error: null, ...result: unknown[]) => void;
      const address = '127.0.0.1';
      if ('all' in options && options.all === true) process.nextTick(call, null, [{ address, family: 4 }]);
      else process.nextTick(call, null, address, 4);
    }) as typeof dns.lookup);
    onTestFinished(() => lookup.mockRestore());
    const endpoint = kms.endpoint.replace('127.0.0.1', 'kms.corp.example');
    useAwsSettings({ ...kms.environment(), AWS_ENDPOINT_URL_KMS: endpoint });
    const { warnings } = await providers.open(`awskms:///${key.arn}`).probe();
    expect(warnings).toEqual([expect.stringMatching(/kms\.corp\.example in the clear/)]);
    kms.clearRequests();
    const failure = await failureOf(awsProviders().open(`awskms:///${key.arn}`).describe());
    expect(failure).toMatchObject({ kind: 'unreachable', message: expect.stringMatching(/in the clear/) });
    expect(kms.requests).toEqual([]);
  });

  it('does not wait long for a service that hangs', async () => {
    const { kms, providers } = await fakeKms({ clock: hurriedClock(10), log: nullLogger });
    const key = kms.createKey();
    kms.inject('hang');
    const report = await providers.open(`awskms:///${key.arn}`).probe();
    expect(report.steps.map(({ outcome }) => outcome)).toEqual([
      'failed',
      'failed',
      'skipped',
      'skipped',
      'skipped',
    ]);
  });
});
