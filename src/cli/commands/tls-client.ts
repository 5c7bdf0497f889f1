import { mkdir, readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { refuseExisting, writeOutput } from '../files.js';
import { print } from '../output.js';
import { CA_FILES, CLIENT_FILES, loadPair, parseDays, writePair } from '../tls/files.js';

/** OUT is then what `tls-certificates=OUT` of libnbd, or `dir=OUT` of QEMU, asks for. */
export async function tlsClient(
  path: string,
  name: string,
  out: string,
  options: { readonly days: string },
): Promise<void> {
  const validity = { nowMs: Date.now(), days: parseDays(options.days) };
  const { Authority, parseCommonName } = await import('../tls/authority.js');
  const client = parseCommonName(name);
  const directory = resolve(path);
  const target = resolve(out);
  const authority = await Authority.load(await loadPair(directory, CA_FILES));
  const files = [CLIENT_FILES.cert, CLIENT_FILES.key, CA_FILES.cert];
  for (const file of files) await refuseExisting(join(target, file));
  await mkdir(target, { recursive: true, mode: 0o700 });
  await writeOutput(join(target, CA_FILES.cert), await readFile(join(directory, CA_FILES.cert)));
  await writePair(target, CLIENT_FILES, await authority.issue({ kind: 'client', name: client }, validity));
  print(`${out}: made a client CN=${client}`);
}
