import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { JobInfo } from '../../admin/schemas.js';
import { formatSize } from '../../base/units.js';
import { clientFor } from '../context.js';
import { type FollowOptions, followJob } from '../follow-job.js';

interface RestoreOptions extends FollowOptions {
  readonly salvage?: boolean;
  readonly plaintext?: boolean;
}

export async function restore(
  dest: string,
  name: string,
  options: RestoreOptions,
  command: Command,
): Promise<void> {
  const client = clientFor(command);
  const path = resolve(dest);
  const { salvage = false, plaintext = false } = options;
  const started = await client.restoreVolume(name, { path, salvage, plaintext });
  await followJob(client, started, options, (job) => {
    return `restored from ${path}, ${formatSize(job.totalBytes)}${protection(job)}`;
  });
}

/** For whoever expects another cipher or key: the backup says which, and somebody may have put it there. */
function protection({ result }: JobInfo): string {
  if (result?.restored === undefined) return '';
  const { cipher, keyUri, resolvedKeyId } = result.restored;
  return keyUri === null ? `, ${cipher}, under no key` : `, ${cipher} under ${keyUri} (${resolvedKeyId})`;
}
