/** Keys that are disabled, pending deletion, rotated. */
import {
  CancelKeyDeletionCommand,
  DisableKeyCommand,
  EnableKeyCommand,
  ReEncryptCommand,
  RotateKeyOnDemandCommand,
  ScheduleKeyDeletionCommand,
} from '@aws-sdk/client-kms';
import { describe, expect, it } from 'vitest';
import { errorNameOf, serviceErrorOf } from './kms-client.js';
import { bytes, CONTEXT, DEK, type KmsFixture } from './kms-fixture.js';

const DAY_MS = 24 * 3_600_000;

export function stateTests(kms: KmsFixture): void {
  /** Every use of a key: Encrypt, Decrypt, ReEncrypt from it and to it. Their errors, or 'ok'. */
  async function uses(KeyId: string, blob: Uint8Array, otherId: string): Promise<string[]> {
    const otherBlob = await kms.wrap(otherId, {});
    const calls: Promise<unknown>[] = [
      kms.wrap(KeyId),
      kms.unwrap(blob),
      kms.client.send(
        new ReEncryptCommand({
          CiphertextBlob: blob,
          SourceEncryptionContext: CONTEXT,
          DestinationKeyId: otherId,
        }),
      ),
      kms.client.send(new ReEncryptCommand({ CiphertextBlob: otherBlob, DestinationKeyId: KeyId })),
    ];
    return Promise.all(
      calls.map((call) =>
        call.then(
          () => 'ok',
          (error: Error) => error.name,
        ),
      ),
    );
  }

  const ALL_FOUR = (name: string): string[] => [name, name, name, name];

  describe('a disabled key', () => {
    async function disabledKey() {
      const key = await kms.makeKey();
      const blob = await kms.wrap(key.KeyId);
      await kms.client.send(new DisableKeyCommand({ KeyId: key.KeyId }));
      return { ...key, blob, otherId: (await kms.makeKey()).KeyId };
    }

    it('is described, and works again once it is enabled', async () => {
      const { KeyId, blob, otherId } = await disabledKey();
      expect(await kms.describeKey(KeyId)).toMatchObject({ KeyState: 'Disabled', Enabled: false });
      await kms.client.send(new EnableKeyCommand({ KeyId }));
      expect(await kms.describeKey(KeyId)).toMatchObject({ KeyState: 'Enabled', Enabled: true });
      expect(await uses(KeyId, blob, otherId)).toEqual(ALL_FOUR('ok'));
    });

    kms.unless(
      'uses disabled keys',
      'refuses every use with DisabledException',
      async () => {
        const { KeyId, Arn, blob, otherId } = await disabledKey();
        expect(await uses(KeyId, blob, otherId)).toEqual(ALL_FOUR('DisabledException'));
        expect((await serviceErrorOf(kms.unwrap(blob))).message).toBe(`${Arn} is disabled.`);
        const rotation = kms.client.send(new RotateKeyOnDemandCommand({ KeyId }));
        expect(await errorNameOf(rotation)).toBe('DisabledException');
      },
      async () => {
        const { KeyId, blob, otherId } = await disabledKey();
        expect(await uses(KeyId, blob, otherId)).toEqual(ALL_FOUR('ok'));
      },
    );
  });

  describe('a key pending deletion', () => {
    const schedule = (KeyId: string, PendingWindowInDays = 7) =>
      kms.client.send(new ScheduleKeyDeletionCommand({ KeyId, PendingWindowInDays }));

    it('is described, with the date', async () => {
      const { KeyId } = await kms.makeKey();
      const { DeletionDate } = await schedule(KeyId);
      expect(Math.abs(DeletionDate!.getTime() - Date.now() - 7 * DAY_MS)).toBeLessThan(DAY_MS);
      const described = await kms.describeKey(KeyId);
      expect(described).toMatchObject({ KeyState: 'PendingDeletion', Enabled: false });
      expect(Math.abs(described.DeletionDate!.getTime() - DeletionDate!.getTime())).toBeLessThan(60_000);
    });

    it('is disabled when its deletion is cancelled, and works again once it is enabled', async () => {
      const { KeyId } = await kms.makeKey();
      const blob = await kms.wrap(KeyId);
      await schedule(KeyId);
      await kms.client.send(new CancelKeyDeletionCommand({ KeyId }));
      const described = await kms.describeKey(KeyId);
      expect(described).toMatchObject({ KeyState: 'Disabled', Enabled: false });
      expect(described.DeletionDate).toBeUndefined();
      await kms.client.send(new EnableKeyCommand({ KeyId }));
      expect(bytes((await kms.unwrap(blob)).Plaintext)).toEqual(DEK);
    });

    kms.unless(
      'bare answers about deletion',
      'is named by its ARN, with state and window',
      async () => {
        const { KeyId, Arn } = await kms.makeKey();
        expect(await schedule(KeyId)).toMatchObject({
          KeyId: Arn,
          KeyState: 'PendingDeletion',
          PendingWindowInDays: 7,
        });
        expect((await kms.client.send(new CancelKeyDeletionCommand({ KeyId }))).KeyId).toBe(Arn);
      },
      async () => {
        const { KeyId } = await kms.makeKey();
        const answer = await schedule(KeyId);
        expect([answer.KeyId, answer.KeyState]).toEqual([KeyId, undefined]);
      },
    );

    kms.unless(
      'uses keys pending deletion',
      'refuses every use, and to be enabled, with KMSInvalidStateException',
      async () => {
        const { KeyId, Arn } = await kms.makeKey();
        const blob = await kms.wrap(KeyId);
        const otherId = (await kms.makeKey()).KeyId;
        await schedule(KeyId);
        expect(await uses(KeyId, blob, otherId)).toEqual(ALL_FOUR('KMSInvalidStateException'));
        const error = await serviceErrorOf(kms.client.send(new EnableKeyCommand({ KeyId })));
        expect([error.name, error.message]).toEqual([
          'KMSInvalidStateException',
          `${Arn} is pending deletion.`,
        ]);
        expect(await errorNameOf(schedule(KeyId))).toBe('KMSInvalidStateException');
      },
      async () => {
        const { KeyId } = await kms.makeKey();
        const blob = await kms.wrap(KeyId);
        const otherId = (await kms.makeKey()).KeyId;
        await schedule(KeyId);
        expect(await uses(KeyId, blob, otherId)).toEqual(ALL_FOUR('ok'));
      },
    );

    kms.unless(
      'takes any window',
      'waits 7 to 30 days',
      async () => {
        const { KeyId } = await kms.makeKey();
        for (const days of [6, 31])
          expect(await errorNameOf(schedule(KeyId, days))).toBe('ValidationException');
        expect((await kms.describeKey(KeyId)).KeyState).toBe('Enabled');
      },
      async () => expect((await schedule((await kms.makeKey()).KeyId, 6)).DeletionDate).toBeUndefined(),
    );
  });

  describe('rotation', () => {
    it('leaves old ciphertexts readable', async () => {
      const { KeyId } = await kms.makeKey();
      const before = await kms.wrap(KeyId);
      await kms.client.send(new RotateKeyOnDemandCommand({ KeyId }));
      const after = await kms.wrap(KeyId);
      for (const blob of [before, after])
        expect(bytes((await kms.unwrap(blob, { KeyId })).Plaintext)).toEqual(DEK);
    });

    kms.unless(
      'no key material ids',
      'changes the key material that DescribeKey, Decrypt and ReEncrypt name',
      async () => {
        const { KeyId, CurrentKeyMaterialId: first } = await kms.makeKey();
        const before = await kms.wrap(KeyId);
        await kms.client.send(new RotateKeyOnDemandCommand({ KeyId }));
        const { CurrentKeyMaterialId: second } = await kms.describeKey(KeyId);
        expect(first).toMatch(/^[0-9a-f]{64}$/);
        expect(second).toMatch(/^[0-9a-f]{64}$/);
        expect(second).not.toBe(first);
        expect((await kms.unwrap(before)).KeyMaterialId).toBe(first);
        expect((await kms.unwrap(await kms.wrap(KeyId))).KeyMaterialId).toBe(second);
        const moved = await kms.client.send(
          new ReEncryptCommand({
            CiphertextBlob: before,
            SourceEncryptionContext: CONTEXT,
            DestinationKeyId: KeyId,
          }),
        );
        expect([moved.SourceKeyMaterialId, moved.DestinationKeyMaterialId]).toEqual([first, second]);
      },
      async () => {
        const { KeyId, CurrentKeyMaterialId } = await kms.makeKey();
        expect(CurrentKeyMaterialId).toBeUndefined();
        expect((await kms.unwrap(await kms.wrap(KeyId))).KeyMaterialId).toBeUndefined();
      },
    );
  });
}
