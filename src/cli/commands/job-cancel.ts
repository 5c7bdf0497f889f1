import type { Command } from 'commander';
import { clientFor } from '../context.js';
import { print } from '../output.js';

export async function jobCancel(id: string, _options: object, command: Command): Promise<void> {
  const job = await clientFor(command).cancelJob(id);
  print(`job ${job.id}: ${job.state === 'running' ? 'cancelled, still waiting for I/O' : job.state}`);
}
