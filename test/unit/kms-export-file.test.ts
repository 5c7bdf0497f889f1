import { beforeEach, describe, expect, it } from 'vitest';
import { systemRandom } from '../../src/keys/random.js';
import { openKeyFile, sealKeyFile } from '../../src/kms/local/export-file.js';
import { addon } from '../../src/native/addon.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';

const PASSPHRASE = 'correct horse battery staple';

async function sealOne() {
  const handle = addon.keyGenerate();
  const identity = {
    name: 'default',
    id: '3b241101-e2bb-4255-8caf-4136c566a962',
    createdAt: '2026-01-01T00:00:00.000Z',
  };
  const text = await sealKeyFile({ ...identity, handle }, PASSPHRASE, systemRandom);
  return { handle, identity, text };
}

describe('a key file', () => {
  beforeEach(expectNoLeakedSlots);

  it('gives the key back to the right passphrase only', async () => {
    const { handle, identity, text } = await sealOne();
    const opened = await openKeyFile(text, PASSPHRASE);
    expect(opened.key).toEqual(identity);
    expect(addon.keyEquals(opened.handle, handle)).toBe(true);
    await expect(openKeyFile(text, `${PASSPHRASE}!`)).rejects.toMatchObject({ code: 'KEY_UNAVAILABLE' });
    for (const key of [handle, opened.handle]) addon.keyRelease(key);
  });

  it('does not contain the key', async () => {
    const { handle, text } = await sealOne();
    const clear = Buffer.alloc(44);
    addon.keyExportBase64(handle, clear, 0);
    expect(text).not.toContain(clear.toString().slice(0, 20));
    addon.keyRelease(handle);
  });

  it('uses scrypt with N=2^17, r=8, p=1 and a salt of its own', async () => {
    const [first, second] = [await sealOne(), await sealOne()];
    const [a, b] = [JSON.parse(first.text), JSON.parse(second.text)];
    expect(a.kdf).toMatchObject({ name: 'scrypt', n: 131_072, r: 8, p: 1 });
    expect(a.kdf.salt).not.toBe(b.kdf.salt);
    for (const { handle } of [first, second]) addon.keyRelease(handle);
  });

  it('is authenticated in every field', async () => {
    const { handle, text } = await sealOne();
    addon.keyRelease(handle);
    const changes: Record<string, unknown>[] = [
      { name: 'other' },
      { id: '3b241101-e2bb-4255-8caf-4136c566a963' },
      { createdAt: '2026-01-01T00:00:00.001Z' },
    ];
    for (const change of changes) {
      const changed = JSON.stringify({ ...JSON.parse(text), ...change });
      await expect(openKeyFile(changed, PASSPHRASE)).rejects.toMatchObject({ code: 'KEY_UNAVAILABLE' });
    }
  });

  it('that asks for absurd work, or is none, is refused before any work', async () => {
    const { handle, text } = await sealOne();
    addon.keyRelease(handle);
    const file = JSON.parse(text);
    const bad = [
      '{',
      '{}',
      JSON.stringify({ ...file, version: 2 }),
      JSON.stringify({ ...file, kdf: { ...file.kdf, n: 2 ** 30 } }),
      JSON.stringify({ ...file, kdf: { ...file.kdf, n: 131_071 } }),
      JSON.stringify({ ...file, kdf: { ...file.kdf, n: 2 ** 10 } }),
    ];
    for (const one of bad)
      await expect(openKeyFile(one, PASSPHRASE)).rejects.toMatchObject({ code: 'INTEGRITY' });
  });

  it('is not made with a short passphrase', async () => {
    const handle = addon.keyGenerate();
    const key = { name: 'a', id: '3b241101-e2bb-4255-8caf-4136c566a962', createdAt: '', handle };
    await expect(sealKeyFile(key, 'short', systemRandom)).rejects.toMatchObject({ code: 'USAGE' });
    addon.keyRelease(handle);
  });
});
