/** The provider on moto's server: an implementation of KMS that nobody here wrote. */
import { CreateAliasCommand, CreateKeyCommand } from '@aws-sdk/client-kms';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { WrapContext } from '../../src/kms/provider.js';
import { addon } from '../../src/native/addon.js';
import { awsProviders, failureOf, useAwsSettings } from '../support/aws-kms.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';
import { type KmsTarget, kmsClient } from './kms-client.js';
import { startMoto } from './moto-server.js';

const context: WrapContext = { volumeUuid: new Uint8Array(16).fill(9), dekId: 3, exposed: false };

/** `problem` says why moto is not there. */
export function awsProviderOnMoto(problem: string | undefined): void {
  describe.skipIf(problem !== undefined)(`awskms: keys on moto's server ${problem ?? ''}`, () => {
    let target: KmsTarget;
    let stop: () => Promise<void>;
    const arns: string[] = [];

    beforeAll(async () => {
      ({ target, stop } = await startMoto());
      const client = kmsClient(target);
      for (const AliasName of ['alias/first', 'alias/second']) {
        const { KeyMetadata } = await client.send(new CreateKeyCommand({ KeyUsage: 'ENCRYPT_DECRYPT' }));
        arns.push(KeyMetadata!.Arn!);
        await client.send(new CreateAliasCommand({ AliasName, TargetKeyId: KeyMetadata!.KeyId }));
      }
      client.destroy();
    }, 120_000);
    afterAll(() => stop());

    beforeEach(() => {
      expectNoLeakedSlots();
      useAwsSettings({
        AWS_ENDPOINT_URL_KMS: target.endpoint,
        AWS_REGION: target.region,
        AWS_ACCESS_KEY_ID: target.credentials.accessKeyId,
        AWS_SECRET_ACCESS_KEY: target.credentials.secretAccessKey,
        AWS_CONFIG_FILE: '/dev/null',
        AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
      });
    });

    it('wrap, unwrap, check and move a DEK', async () => {
      const providers = awsProviders();
      const [first, second] = [
        providers.open('awskms:///alias/first'),
        providers.open(`awskms:///${arns[1]}`),
      ];
      const dek = addon.keyGenerate();
      try {
        const wrapped = await first.wrap(dek, context);
        expect(wrapped).toMatchObject({ resolvedKeyId: arns[0], keyVersion: '' });
        await first.check(wrapped, context, dek);
        const target = { ...context, dekId: 4 };
        const moved = await second.rewrap(wrapped, first, context, target);
        expect(moved.resolvedKeyId).toBe(arns[1]);
        await second.check(moved, target, dek);
        for (const other of [
          context,
          { ...target, exposed: true },
          { ...target, volumeUuid: new Uint8Array(16) },
        ]) {
          expect((await failureOf(second.unwrap(moved, other))).kind).toBe('damaged');
        }
      } finally {
        addon.keyRelease(dek);
      }
    });

    it('pass the dry run, and one that is missing is refused', async () => {
      const providers = awsProviders();
      const report = await providers.open(`awskms:///${arns[0]}`).probe();
      expect(report.steps.map(({ outcome }) => outcome)).toEqual(['ok', 'ok', 'ok', 'ok', 'ok']);
      expect(report.resolvedKeyId).toBe(arns[0]);
      expect((await failureOf(providers.open('awskms:///alias/none').describe())).kind).toBe('refused');
    });
  });
}
