import { createReadStream, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeHeapSnapshot } from 'node:v8';
import { expect, it } from 'vitest';
import { systemRandom } from '../../src/keys/random.js';
import { sealKeyFile } from '../../src/kms/local/export-file.js';
import { keyringOf } from '../../src/kms/local/provider.js';
import { addon } from '../../src/native/addon.js';
import { keyProviders, temporaryDirectory } from '../support/key-fixtures.js';

async function contains(path: string, needles: readonly string[]): Promise<string[]> {
  const found = new Set<string>();
  let before = '';
  for await (const chunk of createReadStream(path, { encoding: 'utf8', highWaterMark: 1 << 20 })) {
    const text = before + (chunk as string);
    for (const needle of needles) if (text.includes(needle)) found.add(needle);
    before = text.slice(-200);
  }
  return [...found];
}

it('no JavaScript string holds a local key after it was made, read, used, exported and written again', async () => {
  const directory = temporaryDirectory();
  const provider = keyProviders(directory).open('local:heap-probe');
  await provider.ensure();
  const context = { volumeUuid: new Uint8Array(16), dekId: 1, exposed: true };
  const dek = addon.keyGenerate();
  const wrapped = await provider.wrap(dek, context);
  await provider.check(wrapped, context, dek);
  await keyProviders(directory).open('local:another').ensure();
  const keyring = keyringOf(directory);
  await keyring.withKey('heap-probe', (key) => {
    addon.keyRetain(key.handle);
    return sealKeyFile(key, 'a passphrase of some length', systemRandom).finally(() =>
      addon.keyRelease(key.handle),
    );
  });
  addon.keyRelease(dek);
  // The snapshot comes first: what the test itself reads must not be in it.
  const snapshot = writeHeapSnapshot(join(directory, 'heap.heapsnapshot'));
  const text = readFileSync(join(directory, 'keyring.json'), 'utf8');
  const keys = [...text.matchAll(/"key": "([^"]+)"/g)].map((match) => match[1].slice(0, 30));
  expect(keys).toHaveLength(2);
  expect(await contains(snapshot, ['heap-probe'])).toEqual(['heap-probe']);
  expect(await contains(snapshot, keys)).toEqual([]);
});
