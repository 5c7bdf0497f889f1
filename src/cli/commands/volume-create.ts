import type { Command } from 'commander';
import type { CipherName } from '../../base/ciphers.js';
import { parseSize } from '../../base/units.js';
import { clientFor, type ListingOptions } from '../context.js';
import { printJson } from '../output.js';
import { printVolume } from './volume-info.js';

interface CreateOptions extends ListingOptions {
  readonly size: string;
  readonly key?: string;
  readonly cipher: CipherName;
}

export async function volumeCreate(name: string, options: CreateOptions, command: Command): Promise<void> {
  const sizeBytes = parseSize(options.size, '--size');
  const { cipher, key } = options;
  const request = { name, sizeBytes, cipher, ...(key === undefined ? {} : { keyUri: key }) };
  const volume = await clientFor(command).createVolume(request);
  if (options.json) return printJson(volume);
  printVolume(volume);
}
