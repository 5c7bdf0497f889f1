/** What keys do. */
import { randomBytes } from 'node:crypto';
import { DecryptCommand, EncryptCommand, ReEncryptCommand } from '@aws-sdk/client-kms';
import { describe, expect, it } from 'vitest';
import { errorNameOf, serviceErrorOf } from './kms-client.js';
import { bytes, CONTEXT, type Context, DEK, type KmsFixture } from './kms-fixture.js';

export function ciphertextTests(kms: KmsFixture): void {
  describe('ciphertexts', () => {
    it('open without a key id, and hide the plaintext', async () => {
      const key = await kms.makeKey();
      const blob = await kms.wrap(key.KeyId);
      expect(Buffer.from(blob).includes(DEK)).toBe(false);
      const opened = await kms.unwrap(blob);
      expect(bytes(opened.Plaintext)).toEqual(DEK);
      expect(opened.KeyId).toBe(key.Arn);
    });

    it('of the same plaintext differ', async () => {
      const { KeyId } = await kms.makeKey();
      expect(bytes(await kms.wrap(KeyId))).not.toEqual(bytes(await kms.wrap(KeyId)));
    });

    it('are made of 1 to 4096 bytes', async () => {
      const { KeyId } = await kms.makeKey();
      for (const size of [1, 4096]) {
        const Plaintext = randomBytes(size);
        const { CiphertextBlob } = await kms.client.send(new EncryptCommand({ KeyId, Plaintext }));
        const opened = await kms.client.send(new DecryptCommand({ CiphertextBlob }));
        expect(bytes(opened.Plaintext)).toEqual(Plaintext);
      }
      for (const size of [0, 4097]) {
        const call = kms.client.send(new EncryptCommand({ KeyId, Plaintext: Buffer.alloc(size) }));
        const error = await serviceErrorOf(call);
        expect(error.name).toBe('ValidationException');
        expect(error.message).toMatch(/at 'plaintext' failed to satisfy constraint: Member must have length/);
      }
    });

    it('open under the very context they were made in, in any order of its pairs', async () => {
      const { KeyId } = await kms.makeKey();
      const blob = await kms.wrap(KeyId);
      const reversed = { dek: CONTEXT.dek, volume: CONTEXT.volume };
      expect(bytes((await kms.unwrap(blob, { context: reversed })).Plaintext)).toEqual(DEK);
      const others: Context[] = [
        {},
        { volume: CONTEXT.volume },
        { ...CONTEXT, extra: '1' },
        { ...CONTEXT, dek: '2' },
        { ...CONTEXT, dek: '1 ' },
        { VOLUME: CONTEXT.volume, dek: CONTEXT.dek },
        { volume: CONTEXT.dek, dek: CONTEXT.volume },
      ];
      for (const context of others) {
        for (const named of [{}, { KeyId }]) {
          expect(await errorNameOf(kms.unwrap(blob, { ...named, context })), JSON.stringify(context)).toBe(
            'InvalidCiphertextException',
          );
        }
      }
    });

    kms.unless(
      'ambiguous context',
      'tell contexts apart that join to the same text',
      async () => {
        const blob = await kms.wrap((await kms.makeKey()).KeyId, { a: 'bc' });
        expect(await errorNameOf(kms.unwrap(blob, { context: { ab: 'c' } }))).toBe(
          'InvalidCiphertextException',
        );
      },
      async () => {
        const blob = await kms.wrap((await kms.makeKey()).KeyId, { a: 'bc' });
        expect(bytes((await kms.unwrap(blob, { context: { ab: 'c' } })).Plaintext)).toEqual(DEK);
      },
    );

    it('that were changed, cut or made up are InvalidCiphertextException', async () => {
      const { KeyId } = await kms.makeKey();
      const blob = bytes(await kms.wrap(KeyId));
      const flipped = Buffer.from(blob);
      flipped[blob.length - 1] ^= 1;
      const cut = blob.subarray(0, blob.length - 1);
      const longer = Buffer.concat([blob, Buffer.alloc(1)]);
      const madeUp = [Buffer.from('not a ciphertext'), Buffer.alloc(200, 0xff), Buffer.from([0])];
      for (const bad of [flipped, cut, longer, ...madeUp]) {
        expect(await errorNameOf(kms.unwrap(bad)), bad.toString('hex')).toBe('InvalidCiphertextException');
      }
    });

    kms.unless(
      'AccessDenied for another key',
      'of another key than the one named are IncorrectKeyException',
      async () => {
        const blob = await kms.wrap((await kms.makeKey()).KeyId);
        const { KeyId } = await kms.makeKey();
        expect(await errorNameOf(kms.unwrap(blob, { KeyId }))).toBe('IncorrectKeyException');
      },
      async () => {
        const blob = await kms.wrap((await kms.makeKey()).KeyId);
        const { KeyId } = await kms.makeKey();
        expect(await errorNameOf(kms.unwrap(blob, { KeyId }))).toBe('AccessDeniedException');
      },
    );

    kms.unless(
      'no algorithm in answers',
      'come with the name of their algorithm',
      async () => {
        const { KeyId } = await kms.makeKey();
        const sealed = await kms.client.send(new EncryptCommand({ KeyId, Plaintext: DEK }));
        const CiphertextBlob = sealed.CiphertextBlob!;
        const opened = await kms.client.send(new DecryptCommand({ CiphertextBlob }));
        expect(sealed.EncryptionAlgorithm).toBe('SYMMETRIC_DEFAULT');
        expect(opened.EncryptionAlgorithm).toBe('SYMMETRIC_DEFAULT');
        const moved = await kms.client.send(
          new ReEncryptCommand({ CiphertextBlob, DestinationKeyId: KeyId }),
        );
        expect(moved.SourceEncryptionAlgorithm).toBe('SYMMETRIC_DEFAULT');
        expect(moved.DestinationEncryptionAlgorithm).toBe('SYMMETRIC_DEFAULT');
      },
      async () => {
        const { KeyId } = await kms.makeKey();
        const sealed = await kms.client.send(new EncryptCommand({ KeyId, Plaintext: DEK }));
        expect(sealed.EncryptionAlgorithm).toBeUndefined();
      },
    );
  });

  describe('ReEncrypt', () => {
    it('moves a ciphertext to another key and context', async () => {
      const [from, to] = [await kms.makeKey(), await kms.makeKey()];
      const moved = await kms.client.send(
        new ReEncryptCommand({
          CiphertextBlob: await kms.wrap(from.KeyId),
          SourceKeyId: from.Arn,
          SourceEncryptionContext: CONTEXT,
          DestinationKeyId: to.KeyId,
          DestinationEncryptionContext: { dek: '2' },
        }),
      );
      expect([moved.SourceKeyId, moved.KeyId]).toEqual([from.Arn, to.Arn]);
      const blob = moved.CiphertextBlob!;
      const opened = await kms.unwrap(blob, { KeyId: to.Arn, context: { dek: '2' } });
      expect(bytes(opened.Plaintext)).toEqual(DEK);
      expect(await errorNameOf(kms.unwrap(blob, { context: CONTEXT }))).toBe('InvalidCiphertextException');
    });

    it('needs the context of the source', async () => {
      const { KeyId } = await kms.makeKey();
      const call = kms.client.send(
        new ReEncryptCommand({
          CiphertextBlob: await kms.wrap(KeyId),
          SourceEncryptionContext: { dek: '1' },
          DestinationKeyId: KeyId,
        }),
      );
      expect(await errorNameOf(call)).toBe('InvalidCiphertextException');
    });

    it('to a key that does not exist is NotFoundException', async () => {
      const CiphertextBlob = await kms.wrap((await kms.makeKey()).KeyId, {});
      const DestinationKeyId = 'alias/absent';
      expect(
        await errorNameOf(kms.client.send(new ReEncryptCommand({ CiphertextBlob, DestinationKeyId }))),
      ).toBe('NotFoundException');
    });

    const withWrongSource = async () => {
      const from = await kms.makeKey();
      const other = await kms.makeKey();
      return kms.client.send(
        new ReEncryptCommand({
          CiphertextBlob: await kms.wrap(from.KeyId, {}),
          SourceKeyId: other.KeyId,
          DestinationKeyId: from.KeyId,
        }),
      );
    };
    kms.unless(
      'ignores SourceKeyId',
      'of a ciphertext of another key than the one named is IncorrectKeyException',
      async () => expect(await errorNameOf(withWrongSource())).toBe('IncorrectKeyException'),
      async () => expect((await withWrongSource()).CiphertextBlob).toBeDefined(),
    );
  });
}
