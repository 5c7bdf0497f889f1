/** The form of answers. */
import { CreateKeyCommand, DescribeKeyCommand } from '@aws-sdk/client-kms';
import { describe, expect, it } from 'vitest';
import { type Alteration, altering, kmsClient, serviceErrorOf } from './kms-client.js';
import type { KmsFixture } from './kms-fixture.js';

export function protocolTests(kms: KmsFixture): void {
  describe('the protocol', () => {
    it('gives every answer, and every error, a request id', async () => {
      const answer = await kms.client.send(new CreateKeyCommand({}));
      expect(answer.$metadata.requestId).toMatch(/^[0-9a-zA-Z-]{20,}$/);
      const error = await serviceErrorOf(kms.describeKey('alias/absent'));
      expect(error.$metadata.requestId).toMatch(/^[0-9a-zA-Z-]{20,}$/);
      expect([error.$metadata.httpStatusCode, error.$fault]).toEqual([400, 'client']);
    });

    /** The name of the error, and the status. */
    async function sendAltered(change: Alteration): Promise<(string | undefined)[]> {
      const altered = altering(kmsClient(kms.target), 'before', change);
      try {
        const outcome = await altered.send(new DescribeKeyCommand({ KeyId: 'alias/any' })).then(
          () => new Error('the call succeeded'),
          (error: Error) => error,
        );
        const { $metadata } = outcome as { $metadata?: { httpStatusCode?: number } };
        return [outcome.name, String($metadata?.httpStatusCode)];
      } finally {
        altered.destroy();
      }
    }

    const unknown = { headers: { 'x-amz-target': 'TrentService.MakeCoffee' } };
    const notJson = { body: '{"KeyId": ' };
    kms.unless(
      'no UnknownOperationException',
      'answers an operation that it does not have with UnknownOperationException',
      async () => expect(await sendAltered(unknown)).toEqual(['UnknownOperationException', '400']),
      async () => expect(await sendAltered(unknown)).toEqual(['SyntaxError', '500']),
    );
    kms.unless(
      'no SerializationException',
      'answers what is not JSON with SerializationException',
      async () => expect(await sendAltered(notJson)).toEqual(['SerializationException', '400']),
      async () => expect(await sendAltered(notJson)).toEqual(['SyntaxError', '500']),
    );
  });
}
