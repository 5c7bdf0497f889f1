import type { Command } from 'commander';
import { clientFor } from '../context.js';
import { refuseExisting, writeOutput } from '../files.js';
import { print } from '../output.js';
import { obtainPassphrase } from '../passphrase.js';

export async function keyExportLocal(
  name: string,
  path: string,
  options: { readonly passphraseFile?: string },
  command: Command,
): Promise<void> {
  await refuseExisting(path);
  const passphrase = await obtainPassphrase(options.passphraseFile, true);
  const key = await clientFor(command).exportLocalKey(name, passphrase);
  await writeOutput(path, key.file);
  print(`local:${key.name}: written to ${path}`);
}
