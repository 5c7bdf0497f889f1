/**
 * The kernel takes 107 bytes of path for a unix socket. A longer one is named through a descriptor of its
 * directory, so that a deep data directory works all the same.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

const SOCKET_PATH_BYTES_MAX = 107;

/** Calls `use` with a path that fits. The path holds until the promise settles. */
export async function withSocketPath<T>(path: string, use: (path: string) => Promise<T>): Promise<T> {
  if (Buffer.byteLength(path) <= SOCKET_PATH_BYTES_MAX) return use(path);
  const directory = openSync(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return await use(join(`/proc/self/fd/${directory}`, basename(path)));
  } finally {
    closeSync(directory);
  }
}
