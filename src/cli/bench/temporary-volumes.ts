/** Volumes that exist while a benchmark runs, and not after it, however it ends (SIGKILL aside). */

import { randomBytes } from 'node:crypto';
import type { AdminClient } from '../../admin/client.js';
import type { CipherName } from '../../base/ciphers.js';
import { isSealbdError, messageOf, SealbdError } from '../../base/errors.js';

/** A name that says where it comes from, should one ever stay behind. */
function temporaryName(cipher: CipherName): string {
  return `sealbd-bench-${randomBytes(4).toString('hex')}-${cipher}`;
}

/** Runs `work` with a new volume for each cipher, and deletes them. */
export async function withTemporaryVolumes<T>(
  client: AdminClient,
  ciphers: readonly CipherName[],
  sizeBytes: number,
  work: (names: readonly string[]) => Promise<T>,
): Promise<T> {
  const names = ciphers.map(temporaryName);
  const errors: unknown[] = [];
  let result: T | undefined;
  try {
    for (const [i, name] of names.entries()) {
      await client.createVolume({ name, sizeBytes, cipher: ciphers[i] });
    }
    result = await work(names);
  } catch (error) {
    errors.push(error);
  }
  for (const name of names) {
    try {
      await client.deleteVolume(name);
    } catch (error) {
      // It was never made; what kept it from that is the error to show.
      if (isSealbdError(error, 'NOT_FOUND') && errors.length > 0) continue;
      errors.push(
        new SealbdError('FAILED', `the temporary volume "${name}" could not be deleted: ${messageOf(error)}`),
      );
    }
  }
  if (errors.length === 1) throw errors[0];
  if (errors.length > 1) throw new SealbdError(codeOf(errors[0]), errors.map(messageOf).join('; '));
  return result as T;
}

function codeOf(error: unknown): SealbdError['code'] {
  return isSealbdError(error) ? error.code : 'FAILED';
}
