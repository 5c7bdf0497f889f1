/**
 * KMSInvalidStateException means two things, and the name does not tell which. Of a key that waits to be deleted, is
 * disabled, has no key material or whose key store was disconnected it is a no. Of a key in an external or CloudHSM key
 * store it is also "a general failure with many possible causes" (AWS's reference of Decrypt): an outage of the proxy or of
 * the cluster, in which nobody took anything away. DescribeKey tells: it gives the state as people set it.
 *
 * So this one error is not judged by its name alone. Where DescribeKey says that the key is well, it counts as
 * unreachable; in every other state, and where DescribeKey is not allowed or gives no answer, as refused.
 */
import type { Call } from './clients.js';
import { AwsKmsError } from './errors.js';

const NAME = 'KMSInvalidStateException';
/** Updating is a change of a key's primary region, which does not keep it from being used. */
const WELL: ReadonlySet<string | undefined> = new Set(['Enabled', 'Creating', 'Updating']);

/** Runs `work`, which uses these keys; `action` names it in errors. */
export async function judgedByState<T>(
  call: Call,
  action: string,
  keyIds: readonly string[],
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Error) || error.name !== NAME || !(await areWell(call, keyIds))) throw error;
    const message = `${action}: ${NAME}, and the state of the key is well: its key store does not answer AWS KMS`;
    throw new AwsKmsError('unreachable', 'KeyStoreOutage', `${message} (AWS says: ${error.message})`, error);
  }
}

async function areWell({ sdk, client, signal }: Call, keyIds: readonly string[]): Promise<boolean> {
  try {
    for (const KeyId of keyIds) {
      const { KeyMetadata } = await client.send(new sdk.DescribeKeyCommand({ KeyId }), {
        abortSignal: signal,
      });
      if (!WELL.has(KeyMetadata?.KeyState)) return false;
    }
    return true;
  } catch {
    // Nothing speaks against what the error says by itself.
    return false;
  }
}
