/** Gives the memory of answers back: the SDK makes strings of what they hold, and forgets the bytes. */
import type { KMSClient } from '@aws-sdk/client-kms';
import { releaseSecret } from '../../native/secret-buffer.js';
import type { Answer } from './http-handler.js';

/** Each answer that `client` gets is wiped and released once it was read, or could not be. */
export function releaseAnswers(client: KMSClient): void {
  const unread = new WeakMap<object, Buffer>();
  client.middlewareStack.add(
    (next, context) => async (args) => {
      const result = await next(args);
      unread.set(context, (result.response as Answer).body);
      return result;
    },
    // Inside of what reads the answer.
    { step: 'deserialize', name: 'sealbdNoteAnswer', priority: 'low' },
  );
  client.middlewareStack.add(
    (next, context) => async (args) => {
      try {
        return await next(args);
      } finally {
        const body = unread.get(context);
        unread.delete(context);
        if (body !== undefined) releaseSecret(body);
      }
    },
    // Around it, and within the retries.
    { step: 'deserialize', name: 'sealbdReleaseAnswer', priority: 'high' },
  );
}
