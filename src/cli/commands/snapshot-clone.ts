import type { Command } from 'commander';
import { clientFor } from '../context.js';
import { type FollowOptions, followJob } from '../follow-job.js';

export async function snapshotClone(
  name: string,
  snapshot: string,
  newName: string,
  options: FollowOptions,
  command: Command,
): Promise<void> {
  const client = clientFor(command);
  const started = await client.cloneSnapshot(name, snapshot, newName);
  await followJob(client, started, options, () => `cloned from ${name}@${snapshot}`);
}
