import type { Command } from 'commander';
import { formatSize, parseSize } from '../../base/units.js';
import { clientFor } from '../context.js';
import { print } from '../output.js';

export async function volumeResize(
  name: string,
  size: string,
  options: { readonly shrink?: boolean },
  command: Command,
): Promise<void> {
  const sizeBytes = parseSize(size, 'SIZE');
  await clientFor(command).resizeVolume(name, sizeBytes, options.shrink ?? false);
  print(`${name}: ${formatSize(sizeBytes)}`);
}
