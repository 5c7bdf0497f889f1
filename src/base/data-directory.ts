/** Where a daemon keeps its data, and its clients look for its socket. */
import { resolve } from 'node:path';

const DEFAULT_DATA_DIRECTORY = './sealbd-data';

/** DIR: the flag, SEALBD_DATA, the configuration file (relative to it), ./sealbd-data. */
export function dataDirectory(
  flag: string | undefined,
  environment: NodeJS.ProcessEnv,
  workingDirectory: string,
  file?: { readonly value: string | undefined; readonly directory: string },
): string {
  const given = flag ?? (environment.SEALBD_DATA || undefined);
  if (given !== undefined) return resolve(workingDirectory, given);
  if (file?.value !== undefined) return resolve(file.directory, file.value);
  return resolve(workingDirectory, DEFAULT_DATA_DIRECTORY);
}
