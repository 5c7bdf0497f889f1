import { resolve } from 'node:path';
import type { Command } from 'commander';
import { formatSize } from '../../base/units.js';
import { clientFor } from '../context.js';
import { type FollowOptions, followJob } from '../follow-job.js';

interface RestoreOptions extends FollowOptions {
  readonly salvage?: boolean;
}

export async function restore(
  dest: string,
  name: string,
  options: RestoreOptions,
  command: Command,
): Promise<void> {
  const client = clientFor(command);
  const path = resolve(dest);
  const started = await client.restoreVolume(name, { path, salvage: options.salvage ?? false });
  await followJob(client, started, options, (job) => `restored from ${path}, ${formatSize(job.totalBytes)}`);
}
