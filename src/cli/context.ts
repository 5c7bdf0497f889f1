/** What the commands that talk to the daemon share. `--data` is an option of the program, valid everywhere. */
import { join } from 'node:path';
import type { Command } from 'commander';
import { AdminClient } from '../admin/client.js';
import { dataDirectory } from '../base/data-directory.js';

export interface ListingOptions {
  readonly json?: boolean;
}

export function dataOption(command: Command): string | undefined {
  return command.optsWithGlobals<{ data?: string }>().data;
}

export function clientFor(command: Command): AdminClient {
  const directory = dataDirectory(dataOption(command), process.env, process.cwd());
  return new AdminClient(join(directory, 'admin.sock'));
}

export const JSON_OPTION = ['--json', 'print JSON'] as const;
