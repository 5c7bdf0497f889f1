import type { Command } from 'commander';
import { clientFor } from '../context.js';
import { print } from '../output.js';

export async function volumeStart(name: string, _options: object, command: Command): Promise<void> {
  const volume = await clientFor(command).startVolume(name);
  print(`${name}: ${volume.state}`);
}
