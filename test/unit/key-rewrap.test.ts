import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { type Clock, systemClock } from '../../src/base/clock.js';
import { KEY_CHECK_TIMEOUT_MS } from '../../src/base/limits.js';
import { nullLogger } from '../../src/base/log.js';
import { systemRandom } from '../../src/keys/random.js';
import { moveToKey, rewrapUnderSameKey } from '../../src/keys/rewrap.js';
import { VolumeHeader } from '../../src/keys/volume-header.js';
import { localScheme } from '../../src/kms/local/provider.js';
import type { ProviderScheme } from '../../src/kms/provider.js';
import { KeyProviders } from '../../src/kms/registry.js';
import { addon, type KeyHandle } from '../../src/native/addon.js';
import { FsStore } from '../../src/store/fs-store.js';
import { expectNoLeakedSlots, kmsEnvironment, temporaryDirectory } from '../support/key-fixtures.js';
import { ManualClock } from '../support/manual-clock.js';
import { ScriptedService } from '../support/scripted-provider.js';
import { StepStore } from '../support/step-store.js';

/** A header under `keyUri` with an active and a retired DEK; the key services `old:` and `new:` do what they are told. */
class Subject {
  readonly data = temporaryDirectory();
  readonly old = new ScriptedService();
  readonly new = new ScriptedService();
  readonly providers: KeyProviders;
  clock: Clock = systemClock;
  store!: FsStore;
  header!: VolumeHeader;
  readonly #handles: KeyHandle[] = [];

  private constructor(more: ProviderScheme[]) {
    this.providers = new KeyProviders(kmsEnvironment(this.data), [
      { ...this.old.scheme, scheme: 'old' },
      { ...this.new.scheme, scheme: 'new' },
      localScheme,
      ...more,
    ]);
    onTestFinished(() => {
      this.header.revoke();
      for (const handle of this.#handles) addon.keyRelease(handle);
      for (const service of [this.old, this.new]) service.end();
    });
  }

  static async create(keyUri: string, more: ProviderScheme[] = []): Promise<Subject> {
    const subject = new Subject(more);
    const { providers, clock } = subject;
    subject.store = await FsStore.open(join(subject.data, 'v'), { create: true });
    const identity = { sizeBytes: 2 ** 30, suite: 2, keyUri } as const;
    const shared = { store: subject.store, providers, clock, random: systemRandom };
    const header = await VolumeHeader.create({ ...shared, ...identity });
    await header.addPending({ providers, clock, keyUri, rewrite: false });
    await header.activatePending();
    subject.header = header;
    // The header gives its own up when it is revoked.
    for (const handle of header.deks.values()) {
      addon.keyRetain(handle);
      subject.#handles.push(handle);
    }
    return subject;
  }

  move(keyUri: string): Promise<void> {
    return moveToKey(this.header, keyUri, this);
  }

  rewrap(): Promise<void> {
    return rewrapUnderSameKey(this.header, this);
  }

  file(name: string): Buffer {
    return readFileSync(join(this.store.path, name));
  }

  /** The volume opens with the very DEKs that it had. */
  async expectOpens(): Promise<void> {
    const { store, providers } = this;
    const again = await VolumeHeader.open({ store, providers, pins: {}, log: nullLogger });
    try {
      const before = [...this.header.deks];
      expect([...again.deks.keys()]).toEqual(before.map(([id]) => id));
      for (const [id, handle] of before) expect(addon.keyEquals(again.deks.get(id)!, handle)).toBe(true);
    } finally {
      again.revoke();
    }
  }

  /** `failing` rejects as `expected`, and neither the files nor the header have changed. */
  async expectNoChange(failing: () => Promise<void>, expected: object): Promise<void> {
    const { superblock } = this.header;
    const before = ['superblock', 'superblock.bak'].map((name) => this.file(name));
    await expect(failing()).rejects.toMatchObject(expected);
    expect(this.header.superblock).toBe(superblock);
    expect(['superblock', 'superblock.bak'].map((name) => this.file(name))).toEqual(before);
    expect(await this.store.list()).not.toContain('superblock.new');
  }
}

const uris = ({ header }: Subject) => header.superblock.deks.map((dek) => dek.keyUri);
const exposed = ({ header }: Subject) => header.superblock.deks.map((dek) => dek.exposed);

describe('key set', () => {
  beforeEach(expectNoLeakedSlots);

  it('moves every DEK, active and retired, and needs the old key no more', async () => {
    const subject = await Subject.create('old:a');
    await subject.move('new:b');
    expect(uris(subject)).toEqual(['new:b', 'new:b']);
    expect(subject.header.superblock.deks.map((dek) => dek.state)).toEqual(['retired', 'active']);
    expect(subject.file('superblock')).toEqual(subject.file('superblock.bak'));
    expect((await subject.store.list()).sort()).toEqual(['reserve-small', 'superblock', 'superblock.bak']);
    subject.old.answer = 'refused';
    await subject.expectOpens();
  });

  it('leaves an exposed DEK exposed, and the mark is bound into the new wrap', async () => {
    const subject = await Subject.create('new:b');
    await subject.providers.open('local:a').ensure();
    expect(exposed(subject)).toEqual([false, false]);
    await subject.move('local:a');
    expect(exposed(subject)).toEqual([true, true]);
    await subject.move('old:c');
    expect(exposed(subject)).toEqual([true, true]);
    await subject.expectOpens();
    const { uuid, deks } = subject.header.superblock;
    const { wrapped: blob, id } = deks[0];
    const context = { volumeUuid: uuid, dekId: id, exposed: false };
    const cleared = subject.providers
      .open('old:c')
      .unwrap({ blob, resolvedKeyId: 'old:c', keyVersion: '1' }, context);
    await expect(cleared).rejects.toMatchObject({ code: 'KEY_AUTH' });
  });

  it.each([
    ['refused', 'KEY_UNAVAILABLE'],
    ['unreachable', 'KEY_UNAVAILABLE'],
  ] as const)('is %s where the present key is, and does not ask the new one', async (answer, code) => {
    const subject = await Subject.create('old:a');
    subject.old.answer = answer;
    await subject.expectNoChange(() => subject.move('new:b'), { kind: answer, code });
    expect(subject.new.questions).toBe(0);
  });

  it('wraps a DEK anew from its slot where the stored wrap is damaged', async () => {
    const subject = await Subject.create('old:a');
    subject.old.queue.push('damaged', 'yes', 'yes', 'yes', 'damaged');
    await subject.move('new:b');
    expect(subject.old.queue).toEqual([]);
    await subject.expectOpens();
  });

  it.each(['refused', 'unreachable', 'damaged'] as const)(
    'does not do that where the present key itself is %s: then the wrap proves nothing',
    async (answer) => {
      const subject = await Subject.create('old:a');
      subject.old.queue.push('damaged');
      subject.old.answer = answer;
      await subject.expectNoChange(() => subject.move('new:b'), { kind: answer });
      expect(subject.new.questions).toBe(0);
    },
  );

  it('does not do that either where the URI has become another key', async () => {
    const subject = await Subject.create('old:alias');
    subject.old.queue.push('damaged');
    subject.old.resolve = () => 'old:another';
    await subject.expectNoChange(() => subject.move('new:b'), { kind: 'refused' });
  });

  it('changes nothing where the new key does not wrap', async () => {
    const subject = await Subject.create('old:a');
    subject.new.answer = 'refused';
    await subject.expectNoChange(() => subject.move('new:b'), { kind: 'refused' });
  });

  it('changes nothing where the new key wraps, but does not unwrap what lies on the disk', async () => {
    const subject = await Subject.create('old:a');
    // Two DEKs are wrapped; the second of the proofs fails.
    subject.new.queue.push('yes', 'yes', 'yes', 'refused');
    await subject.expectNoChange(() => subject.move('new:b'), { kind: 'refused' });
    expect(subject.new.queue).toEqual([]);
  });

  it('changes nothing where the new key gives another DEK back', async () => {
    const service = new ScriptedService();
    onTestFinished(() => service.end());
    const other = addon.keyGenerate();
    onTestFinished(() => addon.keyRelease(other));
    const wrong: ProviderScheme = {
      ...service.scheme,
      scheme: 'wrong',
      open: (uri) => {
        const provider = service.scheme.open(uri, kmsEnvironment(''));
        provider.rewrap = (_wrapped, _from, _fromContext, context) => provider.wrap(other, context);
        return provider;
      },
    };
    const subject = await Subject.create('old:a', [wrong]);
    await subject.expectNoChange(() => subject.move('wrong:x'), { kind: 'damaged' });
  });

  it.each([
    ['with a bit flipped', (bytes: Buffer) => bytes.fill(bytes[100] ^ 1, 100, 101)],
    ['as another one that authenticates', (_: Buffer, subject: Subject) => subject.file('superblock')],
    ['not at all', () => undefined],
  ] as const)('changes nothing where the new superblock reads back %s', async (_, change) => {
    const subject = await Subject.create('old:a');
    const { providers, header } = subject;
    header.revoke();
    const reading = new (class extends StepStore {
      override async readSmall(name: string): Promise<Buffer | undefined> {
        const bytes = await super.readSmall(name);
        return name === 'superblock.new' && bytes !== undefined ? change(bytes, subject) : bytes;
      }
    })(subject.store);
    subject.header = await VolumeHeader.open({ store: reading, providers, pins: {}, log: nullLogger });
    await subject.expectNoChange(() => subject.move('new:b'), { code: 'INTEGRITY' });
  });

  it('does not make a local: key that is missing', async () => {
    const subject = await Subject.create('old:a');
    await subject.expectNoChange(() => subject.move('local:typo'), {
      kind: 'refused',
      message: expect.stringContaining('keyring.json'),
    });
    expect(() => readFileSync(join(subject.data, 'keyring.json'))).toThrow('ENOENT');
  });

  it('is bad usage with a URI of no known kind', async () => {
    const subject = await Subject.create('old:a');
    await subject.expectNoChange(() => subject.move('elsewhere:b'), { code: 'USAGE' });
  });

  it('ends where a key service hangs', async () => {
    const subject = await Subject.create('old:a');
    const clock = new ManualClock();
    subject.clock = clock;
    // Both DEKs are wrapped; the proof hangs.
    subject.new.queue.push('yes', 'yes', 'hangs');
    const moving = subject.expectNoChange(() => subject.move('new:b'), { kind: 'unreachable' });
    while (subject.new.queue.length > 0) await new Promise((resolve) => setImmediate(resolve));
    clock.advance(KEY_CHECK_TIMEOUT_MS);
    await moving;
  });

  it('fails where the keys were wiped meanwhile', async () => {
    const subject = await Subject.create('old:a');
    const moving = subject.expectNoChange(() => subject.move('new:b'), { code: 'KEY_REVOKED' });
    subject.header.revoke();
    await moving;
  });
});

describe('key rewrap', () => {
  beforeEach(expectNoLeakedSlots);

  it('wraps every DEK anew under the same key', async () => {
    const subject = await Subject.create('old:a');
    const before = subject.header.superblock.deks.map((dek) => Buffer.from(dek.wrapped));
    await subject.rewrap();
    const after = subject.header.superblock.deks.map((dek) => Buffer.from(dek.wrapped));
    expect(uris(subject)).toEqual(['old:a', 'old:a']);
    for (const wrapped of after) expect(before).not.toContainEqual(wrapped);
    await subject.expectOpens();
  });

  it('is refused where the URI names another key by now, whose name is told', async () => {
    const subject = await Subject.create('old:alias');
    subject.old.resolve = () => 'old:another';
    await subject.expectNoChange(() => subject.rewrap(), {
      code: 'CONFLICT',
      message: expect.stringMatching(/old:alias now names old:another.*"key set"/),
    });
    expect(subject.old.questions).toBe(4); // Those of making the volume: nothing was wrapped.
    await subject.move('old:alias');
    expect(subject.header.superblock.deks.map((dek) => dek.resolvedKeyId)).toEqual(
      Array(2).fill('old:another'),
    );
  });

  it('is refused too where it changes hands between the question and the wrap', async () => {
    const subject = await Subject.create('old:alias');
    const answers = ['old:alias'];
    subject.old.resolve = () => answers.shift() ?? 'old:another';
    await subject.expectNoChange(() => subject.rewrap(), { code: 'CONFLICT' });
  });

  it.each(['refused', 'unreachable'] as const)('changes nothing where the key is %s', async (answer) => {
    const subject = await Subject.create('old:a');
    subject.old.answer = answer;
    await subject.expectNoChange(() => subject.rewrap(), { kind: answer });
  });

  it('mends a damaged wrap', async () => {
    const subject = await Subject.create('old:a');
    subject.old.queue.push('damaged');
    await subject.rewrap();
    await subject.expectOpens();
  });
});
