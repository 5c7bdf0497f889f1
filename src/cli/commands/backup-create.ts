import { resolve } from 'node:path';
import type { Command } from 'commander';
import { formatSize } from '../../base/units.js';
import { clientFor } from '../context.js';
import { type FollowOptions, followJob } from '../follow-job.js';

interface BackupOptions extends FollowOptions {
  readonly base?: string;
  readonly salvage?: boolean;
}

export async function backupCreate(
  name: string,
  dest: string,
  options: BackupOptions,
  command: Command,
): Promise<void> {
  const client = clientFor(command);
  const path = resolve(dest);
  const base = options.base === undefined ? undefined : resolve(options.base);
  const started = await client.backUpVolume(name, { path, base, salvage: options.salvage ?? false });
  await followJob(client, started, options, (job) => `backed up to ${path}, ${formatSize(job.totalBytes)}`);
}
