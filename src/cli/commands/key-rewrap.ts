import type { Command } from 'commander';
import { clientFor } from '../context.js';
import { print } from '../output.js';

export async function keyRewrap(name: string, _options: object, command: Command): Promise<void> {
  const { keyUri, resolvedKeyId, keyVersion, deks } = await clientFor(command).rewrapKey(name);
  const version = keyVersion === '' ? '' : `, version ${keyVersion}`;
  print(`${name}: DEK ${deks.join(', ')} rewrapped under ${keyUri} (${resolvedKeyId}${version})`);
}
