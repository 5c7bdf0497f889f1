import type { Command } from 'commander';
import { clientFor } from '../context.js';
import { print } from '../output.js';

export async function volumeStop(name: string, _options: object, command: Command): Promise<void> {
  const volume = await clientFor(command).stopVolume(name);
  print(`${name}: ${volume.state}`);
}
