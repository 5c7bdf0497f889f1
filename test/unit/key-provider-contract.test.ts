/** What every key provider must do. A new one needs an entry in PROVIDERS and no other change here. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { KeyProvider, WrapContext } from '../../src/kms/provider.js';
import type { KeyProviders } from '../../src/kms/registry.js';
import { addon, type KeyHandle } from '../../src/native/addon.js';
import { failureOf, fakeKms } from '../support/aws-kms.js';
import { expectNoLeakedSlots, keyProviders, temporaryDirectory } from '../support/key-fixtures.js';

interface Keys {
  readonly providers: KeyProviders;
  /** Two keys that exist, and one that nobody made. */
  readonly first: string;
  readonly second: string;
  readonly missing: string;
  /** The service refuses the first key from now on. */
  takeAway(): void;
  giveBack(): void;
}

interface Kind {
  readonly scheme: string;
  readonly exposes: boolean;
  open(): Promise<Keys>;
}

const local: Kind = {
  scheme: 'local',
  exposes: true,
  async open() {
    const directory = temporaryDirectory();
    const providers = keyProviders(directory);
    for (const name of ['first', 'second']) await providers.open(`local:${name}`).ensure();
    const path = join(directory, 'keyring.json');
    const aside = `${path}.aside`;
    return {
      providers,
      first: 'local:first',
      second: 'local:second',
      missing: 'local:missing',
      takeAway() {
        const keyring = JSON.parse(readFileSync(path, 'utf8'));
        const keys = keyring.keys.filter(({ name }: { name: string }) => name !== 'first');
        renameSync(path, aside);
        writeFileSync(path, JSON.stringify({ ...keyring, keys }), { mode: 0o600 });
      },
      giveBack: () => renameSync(aside, path),
    };
  },
};

const awskms: Kind = {
  scheme: 'awskms',
  exposes: false,
  async open() {
    const { kms, providers } = await fakeKms();
    const [first, second] = [kms.createKey(), kms.createKey()];
    return {
      providers,
      first: `awskms:///${first.arn}`,
      second: `awskms:///${second.arn}`,
      missing: 'awskms:///alias/missing',
      takeAway: () => kms.setState(first, 'Disabled'),
      giveBack: () => kms.setState(first, 'Enabled'),
    };
  },
};

const PROVIDERS: readonly Kind[] = [local, awskms];

const context: WrapContext = { volumeUuid: new Uint8Array(16).fill(7), dekId: 1, exposed: true };
const OTHER_CONTEXTS: [string, WrapContext][] = [
  ['another volume', { ...context, volumeUuid: new Uint8Array(16) }],
  ['another DEK id', { ...context, dekId: 2 }],
  ['a cleared exposed mark', { ...context, exposed: false }],
];

async function withDek<T>(work: (dek: KeyHandle) => Promise<T>): Promise<T> {
  const dek = addon.keyGenerate();
  try {
    return await work(dek);
  } finally {
    addon.keyRelease(dek);
  }
}

async function unwrapsTo(provider: KeyProvider, ...[wrapped, bound]: Parameters<KeyProvider['unwrap']>) {
  const handle = await provider.unwrap(wrapped, bound);
  return {
    is: (dek: KeyHandle) => addon.keyEquals(handle, dek),
    release: () => addon.keyRelease(handle),
  };
}

describe.each(PROVIDERS.map((kind) => [kind.scheme, kind] as const))('a key of %s:', (_scheme, kind) => {
  beforeEach(expectNoLeakedSlots);

  it('unwraps what it wrapped, and the check agrees', async () => {
    const { providers, first } = await kind.open();
    const provider = providers.open(first);
    await withDek(async (dek) => {
      const wrapped = await provider.wrap(dek, context);
      const unwrapped = await unwrapsTo(provider, wrapped, context);
      expect(unwrapped.is(dek)).toBe(true);
      unwrapped.release();
      await provider.check(wrapped, context, dek);
      await providers.open(first).check(wrapped, context, dek);
    });
  });

  it('wraps a DEK differently each time, and says which key did', async () => {
    const { providers, first, second } = await kind.open();
    const provider = providers.open(first);
    await withDek(async (dek) => {
      const [one, two] = [await provider.wrap(dek, context), await provider.wrap(dek, context)];
      expect(Buffer.from(one.blob).equals(two.blob)).toBe(false);
      expect(two.resolvedKeyId).toBe(one.resolvedKeyId);
      const { resolvedKeyId, keyVersion, detail } = await provider.describe();
      expect({ resolvedKeyId, keyVersion }).toEqual({
        resolvedKeyId: one.resolvedKeyId,
        keyVersion: one.keyVersion,
      });
      expect(detail).not.toBe('');
      expect(await provider.describe(one.resolvedKeyId)).toEqual({ resolvedKeyId, keyVersion, detail });
      expect((await providers.open(second).wrap(dek, context)).resolvedKeyId).not.toBe(one.resolvedKeyId);
    });
  });

  it('never takes another DEK for the one in use', async () => {
    const { providers, first } = await kind.open();
    const provider = providers.open(first);
    await withDek(async (dek) => {
      const wrapped = await withDek((other) => provider.wrap(other, context));
      expect((await failureOf(provider.check(wrapped, context, dek))).kind).toBe('damaged');
    });
  });

  it.each(OTHER_CONTEXTS)('calls a wrap for %s damaged', async (_what, other) => {
    const { providers, first } = await kind.open();
    const provider = providers.open(first);
    await withDek(async (dek) => {
      const wrapped = await provider.wrap(dek, context);
      expect((await failureOf(provider.unwrap(wrapped, other))).kind).toBe('damaged');
      expect((await failureOf(provider.check(wrapped, other, dek))).kind).toBe('damaged');
    });
  });

  it('calls every changed byte of a wrap, and a wrap cut short, damaged', async () => {
    const { providers, first } = await kind.open();
    const provider = providers.open(first);
    const wrapped = await withDek((dek) => provider.wrap(dek, context));
    const blobs = Array.from(wrapped.blob, (_, i) => {
      const blob = Uint8Array.from(wrapped.blob);
      blob[i] ^= 0x10;
      return blob;
    });
    for (const length of [0, 1, wrapped.blob.length - 1]) blobs.push(wrapped.blob.slice(0, length));
    for (const blob of blobs) {
      expect((await failureOf(provider.unwrap({ ...wrapped, blob }, context))).kind).toBe('damaged');
    }
  });

  it('calls another DEK than the one in use damaged', async () => {
    const { providers, first } = await kind.open();
    const provider = providers.open(first);
    const wrapped = await withDek((dek) => provider.wrap(dek, context));
    const failure = await withDek((other) => failureOf(provider.check(wrapped, context, other)));
    expect(failure).toMatchObject({ kind: 'damaged', code: 'INTEGRITY' });
  });

  it('does not open what another key wrapped, under whichever name it is stored', async () => {
    const { providers, first, second } = await kind.open();
    const [own, foreign] = await withDek(async (dek) => [
      await providers.open(first).wrap(dek, context),
      await providers.open(second).wrap(dek, context),
    ]);
    const provider = providers.open(first);
    expect(['refused', 'damaged']).toContain((await failureOf(provider.unwrap(foreign, context))).kind);
    const renamed = { ...foreign, resolvedKeyId: own.resolvedKeyId };
    expect((await failureOf(provider.unwrap(renamed, context))).kind).toBe('damaged');
  });

  it('is refused while it is taken away, and works again when it is back', async () => {
    const { providers, first, takeAway, giveBack } = await kind.open();
    const provider = providers.open(first);
    await withDek(async (dek) => {
      const wrapped = await provider.wrap(dek, context);
      takeAway();
      for (const use of [
        () => provider.check(wrapped, context, dek),
        () => provider.unwrap(wrapped, context),
        () => provider.wrap(dek, context),
        () => provider.rewrap(wrapped, provider, context, context),
      ]) {
        expect(await failureOf(use())).toMatchObject({ kind: 'refused', code: 'KEY_UNAVAILABLE' });
      }
      giveBack();
      await provider.check(wrapped, context, dek);
    });
  });

  it('that is missing is refused', async () => {
    const { providers, missing } = await kind.open();
    const provider = providers.open(missing);
    expect((await failureOf(provider.describe())).kind).toBe('refused');
    expect((await withDek((dek) => failureOf(provider.wrap(dek, context)))).kind).toBe('refused');
  });

  it('rewraps what another key of its kind wrapped, in another context', async () => {
    const { providers, first, second } = await kind.open();
    const [from, to] = [providers.open(first), providers.open(second)];
    await withDek(async (dek) => {
      const wrapped = await from.wrap(dek, context);
      const target = { ...context, exposed: false };
      const moved = await to.rewrap(wrapped, from, context, target);
      await to.check(moved, target, dek);
      await from.check(wrapped, context, dek);
      expect((await failureOf(to.unwrap(moved, context))).kind).toBe('damaged');
      const wrong = await failureOf(to.rewrap(wrapped, from, target, context));
      expect(wrong.kind).toBe('damaged');
    });
  });

  const others = PROVIDERS.filter((other) => other !== kind);
  it.each(others.map((other) => [other.scheme, other] as const))(
    'rewraps what a key of %s: wrapped',
    async (_other, other) => {
      const source = await other.open();
      const { providers, second } = await kind.open();
      const [from, to] = [source.providers.open(source.first), providers.open(second)];
      await withDek(async (dek) => {
        const moved = await to.rewrap(await from.wrap(dek, context), from, context, context);
        await to.check(moved, context, dek);
      });
    },
  );

  it('does not wrap a DEK that was released or revoked', async () => {
    const { providers, first } = await kind.open();
    const provider = providers.open(first);
    const released = addon.keyGenerate();
    addon.keyRelease(released);
    await expect(provider.wrap(released, context)).rejects.toMatchObject({ code: 'KEY_STALE' });
    await withDek(async (dek) => {
      addon.keyRevoke(dek);
      await expect(provider.wrap(dek, context)).rejects.toMatchObject({ code: 'KEY_REVOKED' });
    });
  });

  it('serves many at once', async () => {
    const { providers, first } = await kind.open();
    const provider = providers.open(first);
    await Promise.all(
      Array.from({ length: 40 }, (_, i) => {
        const bound = { ...context, dekId: i + 1 };
        return withDek(async (dek) => provider.check(await provider.wrap(dek, bound), bound, dek));
      }),
    );
  });

  it('passes its dry run, which leaves nothing behind', async () => {
    const { providers, first } = await kind.open();
    const provider = providers.open(first);
    const { resolvedKeyId } = await provider.describe();
    const report = await provider.probe();
    expect(report.steps.length).toBeGreaterThan(0);
    for (const { permission, outcome } of report.steps)
      expect([permission, outcome]).toEqual([permission, 'ok']);
    expect(report.resolvedKeyId).toBe(resolvedKeyId);
  });

  it('fails its dry run while it is taken away or missing, and says why and what mends it', async () => {
    const { providers, first, missing, takeAway } = await kind.open();
    takeAway();
    for (const uri of [first, missing]) {
      const { steps } = await providers.open(uri).probe();
      const failed = steps.filter(({ outcome }) => outcome === 'failed' || outcome === 'denied');
      expect(failed.length).toBeGreaterThan(0);
      for (const { error, fix } of failed) {
        expect(error).toBeTruthy();
        expect(fix).toBeTruthy();
      }
      for (const { outcome, error } of steps) if (outcome === 'skipped') expect(error).toBeTruthy();
    }
    await expect(providers.open(missing).describe()).rejects.toMatchObject({ kind: 'refused' });
  });

  it('can be ensured again and again', async () => {
    const { providers, first } = await kind.open();
    const provider = providers.open(first);
    const { resolvedKeyId } = await provider.describe();
    for (let i = 0; i < 2; i++) await provider.ensure();
    expect((await provider.describe()).resolvedKeyId).toBe(resolvedKeyId);
  });

  it('says whether a copy of the data directory gives it away', async () => {
    const { providers, first } = await kind.open();
    expect(providers.exposes(first)).toBe(kind.exposes);
    expect(providers.open(first).uri).toBe(first);
  });

  it('with a malformed URI is bad usage, and the error names it', async () => {
    const { providers } = await kind.open();
    for (const uri of [`${kind.scheme}:`, `${kind.scheme}:///../x`, `${kind.scheme}:a b`]) {
      expect(() => providers.open(uri)).toThrow(
        expect.objectContaining({ code: 'USAGE', message: expect.stringContaining(`"${uri}"`) }),
      );
    }
  });
});
