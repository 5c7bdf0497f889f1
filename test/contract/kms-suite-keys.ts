/** Keys and aliases. */
import {
  CreateAliasCommand,
  DecryptCommand,
  DeleteAliasCommand,
  EncryptCommand,
  ListAliasesCommand,
  ReEncryptCommand,
  UpdateAliasCommand,
} from '@aws-sdk/client-kms';
import { describe, expect, it } from 'vitest';
import { errorNameOf, serviceErrorOf } from './kms-client.js';
import { bytes, DEK, type KmsFixture } from './kms-fixture.js';

export function keyTests(kms: KmsFixture): void {
  describe('a key', () => {
    it('is made enabled, for symmetric encryption', async () => {
      const key = await kms.makeKey();
      expect(key).toMatchObject({
        KeyState: 'Enabled',
        Enabled: true,
        KeySpec: 'SYMMETRIC_DEFAULT',
        EncryptionAlgorithms: ['SYMMETRIC_DEFAULT'],
        KeyManager: 'CUSTOMER',
        Origin: 'AWS_KMS',
      });
      expect(key.Arn).toMatch(new RegExp(`^arn:aws:kms:${kms.target.region}:\\d{12}:key/${key.KeyId}$`));
      expect(Math.abs(key.CreationDate!.getTime() - Date.now())).toBeLessThan(10 * 60_000);
    });

    kms.unless(
      'no defaults in DescribeKey',
      'says what it is for where its maker did not',
      async () =>
        expect(await kms.makeKey()).toMatchObject({ KeyUsage: 'ENCRYPT_DECRYPT', MultiRegion: false }),
      async () => {
        const { KeyUsage, MultiRegion } = await kms.makeKey();
        expect([KeyUsage, MultiRegion]).toEqual([undefined, undefined]);
      },
    );

    it('is found by id, ARN, alias and alias ARN, and every answer says its ARN', async () => {
      const key = await kms.makeKey();
      const alias = await kms.makeAlias(key.KeyId);
      for (const id of [key.KeyId, key.Arn, alias, key.Arn.replace(/key\/.*/, alias)]) {
        expect((await kms.describeKey(id)).Arn).toBe(key.Arn);
        const wrapped = await kms.client.send(new EncryptCommand({ KeyId: id, Plaintext: DEK }));
        expect(wrapped.KeyId).toBe(key.Arn);
        const CiphertextBlob = wrapped.CiphertextBlob!;
        const opened = await kms.client.send(new DecryptCommand({ KeyId: id, CiphertextBlob }));
        expect(opened.KeyId).toBe(key.Arn);
        expect(bytes(opened.Plaintext)).toEqual(DEK);
        const moved = await kms.client.send(new ReEncryptCommand({ CiphertextBlob, DestinationKeyId: id }));
        expect([moved.SourceKeyId, moved.KeyId]).toEqual([key.Arn, key.Arn]);
      }
    });

    it('that does not exist is NotFoundException, with a sentence that names it', async () => {
      const absent = '0a1b2c3d-0000-4000-8000-0123456789ab';
      const arn = (await kms.makeKey()).Arn.replace(/key\/.*/, '');
      const cases = {
        [absent]: `Key '${arn}key/${absent}' does not exist`,
        [`${arn}key/${absent}`]: `Key '${arn}key/${absent}' does not exist`,
        'alias/absent': `Alias ${arn}alias/absent is not found.`,
        [`${arn}alias/absent`]: `Alias ${arn}alias/absent is not found.`,
      };
      for (const [KeyId, message] of Object.entries(cases)) {
        for (const call of [() => kms.describeKey(KeyId), () => kms.wrap(KeyId)]) {
          const error = await serviceErrorOf(call());
          expect([error.name, error.message]).toEqual(['NotFoundException', message]);
        }
      }
      const malformed = await serviceErrorOf(kms.describeKey('no-key-id'));
      expect(malformed.name).toBe('NotFoundException');
      expect(malformed.message).toMatch(/^Invalid keyId '?no-key-id'?$/);
    });

    kms.unless(
      'takes ARNs of other regions',
      'is not found by an ARN of another region',
      async () => {
        const { Arn } = await kms.makeKey();
        expect(await errorNameOf(kms.describeKey(Arn.replace(kms.target.region, 'eu-north-1')))).toBe(
          'NotFoundException',
        );
      },
      async () => {
        const { Arn } = await kms.makeKey();
        expect((await kms.describeKey(Arn.replace(kms.target.region, 'eu-north-1'))).Arn).toBe(Arn);
      },
    );
  });

  describe('an alias', () => {
    it('can be pointed at another key, while ciphertexts stay with theirs', async () => {
      const [first, second] = [await kms.makeKey(), await kms.makeKey()];
      const alias = await kms.makeAlias(first.KeyId);
      const blob = await kms.wrap(alias);
      await kms.client.send(new UpdateAliasCommand({ AliasName: alias, TargetKeyId: second.KeyId }));
      expect((await kms.describeKey(alias)).Arn).toBe(second.Arn);
      expect((await kms.unwrap(blob)).KeyId).toBe(first.Arn);
      expect((await kms.unwrap(blob, { KeyId: first.Arn })).KeyId).toBe(first.Arn);
      expect((await kms.unwrap(await kms.wrap(alias))).KeyId).toBe(second.Arn);
    });

    it('is listed until it is deleted', async () => {
      const key = await kms.makeKey();
      const alias = await kms.makeAlias(key.KeyId);
      const { Aliases: listed } = await kms.client.send(new ListAliasesCommand({ KeyId: key.KeyId }));
      expect(listed).toMatchObject([
        { AliasName: alias, AliasArn: key.Arn.replace(/key\/.*/, alias), TargetKeyId: key.KeyId },
      ]);
      await kms.client.send(new DeleteAliasCommand({ AliasName: alias }));
      const { Aliases: left } = await kms.client.send(new ListAliasesCommand({ KeyId: key.KeyId }));
      expect(left).toEqual([]);
      expect(await errorNameOf(kms.describeKey(alias))).toBe('NotFoundException');
      expect(await errorNameOf(kms.client.send(new DeleteAliasCommand({ AliasName: alias })))).toBe(
        'NotFoundException',
      );
    });

    it('is of one key, has the prefix alias/, and points at a key', async () => {
      const { KeyId } = await kms.makeKey();
      const alias = await kms.makeAlias(KeyId);
      const make = (AliasName: string, TargetKeyId: string) =>
        errorNameOf(kms.client.send(new CreateAliasCommand({ AliasName, TargetKeyId })));
      expect(await make(alias, KeyId)).toBe('AlreadyExistsException');
      expect(await make('without-prefix', KeyId)).toBe('ValidationException');
      expect(await make('alias/sp ace', KeyId)).toBe('ValidationException');
      expect(await make('alias/of-an-alias', alias)).toBe('ValidationException');
      expect(await make('alias/aws/ebs', KeyId)).toBe('NotAuthorizedException');
      const repoint = kms.client.send(
        new UpdateAliasCommand({ AliasName: 'alias/absent', TargetKeyId: KeyId }),
      );
      expect(await errorNameOf(repoint)).toBe('NotFoundException');
    });

    kms.unless(
      'ListAliases has those of AWS',
      'that nobody made is not listed',
      async () => {
        const { Aliases } = await kms.client.send(new ListAliasesCommand({}));
        expect(Aliases!.filter(({ AliasName }) => AliasName!.startsWith('alias/aws/'))).toEqual([]);
      },
      async () => {
        const { Aliases } = await kms.client.send(new ListAliasesCommand({}));
        expect(Aliases!.some(({ AliasName }) => AliasName === 'alias/aws/ebs')).toBe(true);
      },
    );
  });
}
