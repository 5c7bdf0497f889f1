/** Volumes that exist while a benchmark runs, and not after it, however it ends (SIGKILL aside). */

import { randomBytes } from 'node:crypto';
import type { AdminClient } from '../../admin/client.js';
import type { CipherName } from '../../base/ciphers.js';
import { isSealbdError, messageOf, SealbdError } from '../../base/errors.js';

/** The part of the admin client that is needed here. */
export type VolumeMaker = Pick<AdminClient, 'createVolume' | 'deleteVolume'>;

/** A name that says where it comes from, should one ever stay behind. */
function temporaryName(cipher: CipherName): string {
  return `sealbd-bench-${randomBytes(8).toString('hex')}-${cipher}`;
}

/** Runs `work` with a new volume for each cipher, and deletes them. A volume that was there before is left alone. */
export async function withTemporaryVolumes<T>(
  client: VolumeMaker,
  ciphers: readonly CipherName[],
  sizeBytes: number,
  work: (names: readonly string[]) => Promise<T>,
): Promise<T> {
  const names = ciphers.map(temporaryName);
  const made: string[] = [];
  const errors: unknown[] = [];
  let result: T | undefined;
  try {
    for (const [i, name] of names.entries()) {
      await create(client, name, ciphers[i], sizeBytes, made);
    }
    result = await work(names);
  } catch (error) {
    errors.push(error);
  }
  for (const name of made) {
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

/** Notes it as made unless somebody else has made it: a request whose answer was lost may have been done. */
async function create(
  client: VolumeMaker,
  name: string,
  cipher: CipherName,
  sizeBytes: number,
  made: string[],
): Promise<void> {
  made.push(name);
  try {
    await client.createVolume({ name, sizeBytes, cipher });
  } catch (error) {
    if (isSealbdError(error, 'CONFLICT')) made.pop();
    throw error;
  }
}

function codeOf(error: unknown): SealbdError['code'] {
  return isSealbdError(error) ? error.code : 'FAILED';
}
