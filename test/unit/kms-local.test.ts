import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { encodeKeyring } from '../../src/kms/local/keyring-codec.js';
import { KmsError, type WrapContext } from '../../src/kms/provider.js';
import { addon } from '../../src/native/addon.js';
import { expectNoLeakedSlots, keyProviders, temporaryDirectory } from '../support/key-fixtures.js';

const context: WrapContext = { volumeUuid: new Uint8Array(16).fill(7), dekId: 1, exposed: true };

function setup() {
  const directory = temporaryDirectory();
  const path = join(directory, 'keyring.json');
  return { directory, path, providers: keyProviders(directory) };
}

/** Wraps a fresh DEK under the URI, making the key where it is missing. */
async function wrapOne(providers: ReturnType<typeof keyProviders>, uri = 'local:default') {
  const provider = providers.open(uri);
  await provider.ensure();
  const dek = addon.keyGenerate();
  const wrapped = await provider.wrap(dek, context);
  return { provider, dek, wrapped };
}

async function kindOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(KmsError);
  return (error as KmsError).kind;
}

describe('local: keys', () => {
  beforeEach(expectNoLeakedSlots);

  it('unwrap what they wrapped, under the same context', async () => {
    const { provider, dek, wrapped } = await wrapOne(setup().providers);
    const again = await provider.unwrap(wrapped, context);
    expect(addon.keyEquals(again, dek)).toBe(true);
    await provider.check(wrapped, context, dek);
    addon.keyRelease(again);
    addon.keyRelease(dek);
  });

  it('call another volume, another DEK id, a cleared exposed mark and a flipped bit damaged', async () => {
    const { provider, dek, wrapped } = await wrapOne(setup().providers);
    addon.keyRelease(dek);
    const flipped = { ...wrapped, blob: Uint8Array.from(wrapped.blob) };
    flipped.blob[20] ^= 1;
    const otherVolume = { ...context, volumeUuid: new Uint8Array(16) };
    expect(await kindOf(provider.unwrap(flipped, context))).toBe('damaged');
    expect(await kindOf(provider.unwrap(wrapped, otherVolume))).toBe('damaged');
    expect(await kindOf(provider.unwrap(wrapped, { ...context, dekId: 2 }))).toBe('damaged');
    expect(await kindOf(provider.unwrap(wrapped, { ...context, exposed: false }))).toBe('damaged');
  });

  it('check calls a DEK that differs from the one in use damaged', async () => {
    const { provider, dek, wrapped } = await wrapOne(setup().providers);
    const other = addon.keyGenerate();
    expect(await kindOf(provider.check(wrapped, context, other))).toBe('damaged');
    for (const key of [dek, other]) addon.keyRelease(key);
  });

  it('are refused where the keyring or the key is missing, and only ensure makes them', async () => {
    const { path, providers } = setup();
    const { dek, wrapped } = await wrapOne(providers);
    addon.keyRelease(dek);
    expect(await kindOf(providers.open('local:other').describe())).toBe('refused');
    expect(JSON.parse(readFileSync(path, 'utf8')).keys.map((key: { name: string }) => key.name)).toEqual([
      'default',
    ]);
    writeFileSync(path, JSON.stringify({ warning: '', version: 1, keys: [] }), { mode: 0o600 });
    expect(await kindOf(providers.open('local:default').unwrap(wrapped, context))).toBe('refused');
  });

  it('are out of reach, and no thread is held, where keyring.json is a pipe', async () => {
    const { path, providers } = setup();
    execFileSync('mkfifo', ['-m', '600', path]);
    const provider = providers.open('local:default');
    // As many as Node has threads for files, and more.
    const kinds = await Promise.all(Array.from({ length: 12 }, () => kindOf(provider.describe())));
    expect(new Set(kinds)).toEqual(new Set(['unreachable']));
    await expect(provider.ensure()).rejects.toThrow(/is not a file/);
  });

  it('are out of reach where keyring.json is a directory, which says nothing about the key', async () => {
    const { path, providers } = setup();
    mkdirSync(path, { mode: 0o700 });
    expect(await kindOf(providers.open('local:default').describe())).toBe('unreachable');
  });

  it('are refused where another key took the name', async () => {
    const { path, providers } = setup();
    const { dek, wrapped } = await wrapOne(providers);
    addon.keyRelease(dek);
    writeFileSync(path, JSON.stringify({ warning: '', version: 1, keys: [] }), { mode: 0o600 });
    await providers.open('local:default').ensure();
    expect(await kindOf(providers.open('local:default').unwrap(wrapped, context))).toBe('refused');
  });

  it('rewrap moves a DEK under another key', async () => {
    const { providers } = setup();
    const { provider, dek, wrapped } = await wrapOne(providers);
    const target = providers.open('local:second');
    await target.ensure();
    const moved = await target.rewrap(wrapped, provider, context, context);
    const again = await target.unwrap(moved, context);
    expect(addon.keyEquals(again, dek)).toBe(true);
    expect(moved.resolvedKeyId).not.toBe(wrapped.resolvedKeyId);
    for (const key of [dek, again]) addon.keyRelease(key);
  });

  it('ensured many at once are all in the file, once each', async () => {
    const { path, providers } = setup();
    const names = ['a', 'b', 'c', 'a', 'b', 'c', 'd'];
    await Promise.all(names.map((name) => providers.open(`local:${name}`).ensure()));
    const { keys } = JSON.parse(readFileSync(path, 'utf8'));
    expect(keys.map((key: { name: string }) => key.name).sort()).toEqual(['a', 'b', 'c', 'd']);
  });

  it.each(['local:', 'local:a/b', 'local:.x', 'vault:x', 'default'])('the URI %s is bad usage', (uri) => {
    expect(() => setup().providers.open(uri)).toThrow(expect.objectContaining({ code: 'USAGE' }));
  });
});

describe('keyring.json', () => {
  beforeEach(expectNoLeakedSlots);

  it('is mode 0600 and says that it protects nothing', async () => {
    const { path, providers } = setup();
    await providers.open('local:default').ensure();
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(JSON.parse(readFileSync(path, 'utf8')).warning).toMatch(/NOT protected/);
  });

  it('leaves no text behind where a key of it cannot be written', async () => {
    const [whole, gone] = [addon.keyGenerate(), addon.keyGenerate()];
    addon.keyRelease(gone);
    const entry = { id: 'x', createdAt: 'now' };
    const before = addon.secureMemory().pagesBytes;
    const encode = () => {
      return encodeKeyring([
        { ...entry, name: 'a', handle: whole },
        { ...entry, name: 'b', handle: gone },
      ]);
    };
    expect(encode).toThrow(expect.objectContaining({ code: 'KEY_STALE' }));
    await expect.poll(() => addon.secureMemory().pagesBytes, { timeout: 30_000 }).toBeLessThanOrEqual(before);
    addon.keyRelease(whole);
  });

  it.each([0o640, 0o604, 0o660])('of mode %o is refused', async (mode) => {
    const { path, providers } = setup();
    await providers.open('local:default').ensure();
    chmodSync(path, mode);
    await expect(providers.open('local:default').describe()).rejects.toThrow(/0600/);
    expect(await kindOf(providers.open('local:default').ensure())).toBe('refused');
  });

  it('that is a symbolic link is refused', async () => {
    const { directory, path, providers } = setup();
    writeFileSync(join(directory, 'elsewhere'), '{}', { mode: 0o600 });
    symlinkSync(join(directory, 'elsewhere'), path);
    expect(await kindOf(providers.open('local:default').describe())).toBe('refused');
  });

  it.each(['', '{}', 'nothing'])('that holds no key, as in "%s", is refused and left alone', async (text) => {
    const { path, providers } = setup();
    writeFileSync(path, text, { mode: 0o600 });
    expect(await kindOf(providers.open('local:default').describe())).toBe('refused');
    expect(await kindOf(providers.open('local:default').ensure())).toBe('refused');
    expect(readFileSync(path, 'utf8')).toBe(text);
  });

  const damage: [string, (text: string) => string][] = [
    ['is cut short', (text) => text.slice(0, -20)],
    ['has a key that is too short', (text) => text.replace(/("key": ")..../, '$1')],
    ['has a key that is not base64', (text) => text.replace(/("key": ")./, '$1!')],
    ['has a key under another field', (text) => text.replace('"key":', '"kay":')],
    ['is of another version', (text) => text.replace('"version": 1', '"version": 2')],
    ['has two keys of one name', (text) => text.replace('"second"', '"default"')],
  ];
  it.each(damage)('that %s is damaged, and the error shows no key', async (_what, change) => {
    const { path, providers } = setup();
    await providers.open('local:default').ensure();
    await providers.open('local:second').ensure();
    const text = readFileSync(path, 'utf8');
    const secrets = [...text.matchAll(/"key": "([^"]+)"/g)].map((match) => match[1]);
    expect(secrets).toHaveLength(2);
    writeFileSync(path, change(text));
    const error: unknown = await providers
      .open('local:default')
      .describe()
      .catch((reason: unknown) => reason);
    expect((error as KmsError).kind).toBe('damaged');
    const shown = `${(error as Error).stack} ${JSON.stringify(error)} ${String((error as Error).cause)}`;
    for (const secret of secrets) expect(shown).not.toContain(secret.slice(4, 24));
    expect(await kindOf(providers.open('local:default').ensure())).toBe('damaged');
    expect(readFileSync(path, 'utf8')).toBe(change(text));
  });

  it('is parsed only after its keys were masked', async () => {
    const { path, providers } = setup();
    await providers.open('local:default').ensure();
    const [, secret] = /"key": "([^"]+)"/.exec(readFileSync(path, 'utf8'))!;
    const parse = vi.spyOn(JSON, 'parse');
    const stringify = vi.spyOn(JSON, 'stringify');
    await providers.open('local:default').describe();
    await providers.open('local:second').ensure();
    const texts = [...parse.mock.calls, ...stringify.mock.calls].map((call) => JSON.stringify(call[0]));
    vi.restoreAllMocks();
    expect(texts.some((text) => text.includes('*'.repeat(44)))).toBe(true);
    for (const text of texts) expect(text).not.toContain(secret);
    expect(readFileSync(path, 'utf8')).toContain(secret);
  });
});
