import { constants } from 'node:fs';
import { open } from 'node:fs/promises';

/** fsync(2) of a directory: the names in it are durable. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
