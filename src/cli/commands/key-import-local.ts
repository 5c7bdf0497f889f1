import type { Command } from 'commander';
import { clientFor } from '../context.js';
import { readInput } from '../files.js';
import { print } from '../output.js';
import { obtainPassphrase } from '../passphrase.js';

export async function keyImportLocal(
  name: string,
  path: string,
  options: { readonly passphraseFile?: string },
  command: Command,
): Promise<void> {
  const file = await readInput(path);
  const passphrase = await obtainPassphrase(options.passphraseFile, false);
  const key = await clientFor(command).importLocalKey(name, passphrase, file.toString('utf8'));
  print(`local:${key.name}: ${key.added ? 'added to the keyring' : 'was there already'}`);
}
