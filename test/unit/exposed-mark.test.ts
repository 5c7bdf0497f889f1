import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { nullLogger } from '../../src/base/log.js';
import { backUpHeader, restoreHeader } from '../../src/keys/header-backup.js';
import { readHeaderCopies } from '../../src/keys/header-copies.js';
import { systemRandom } from '../../src/keys/random.js';
import { moveToKey } from '../../src/keys/rewrap.js';
import { decodeSuperblock, type Superblock } from '../../src/keys/superblock.js';
import { VolumeHeader } from '../../src/keys/volume-header.js';
import { localScheme } from '../../src/kms/local/provider.js';
import { KeyProviders } from '../../src/kms/registry.js';
import { FsStore } from '../../src/store/fs-store.js';
import type { Store } from '../../src/store/store.js';
import { ioError } from '../support/hooked-store.js';
import { expectNoLeakedSlots, kmsEnvironment, temporaryDirectory } from '../support/key-fixtures.js';
import { ScriptedService } from '../support/scripted-provider.js';

/** A real store that tells of each superblock before it is written, and may fail instead. */
function watchedStore(
  inner: FsStore,
  before: (name: string, superblock: Superblock) => Promise<void>,
): Store {
  return new Proxy<Store>(inner, {
    get(target, property) {
      if (property !== 'replaceSmall') {
        const value: unknown = Reflect.get(target, property, target);
        return typeof value === 'function' ? value.bind(target) : value;
      }
      return async (name: string, bytes: Uint8Array): Promise<void> => {
        await before(name, decodeSuperblock(Buffer.from(bytes)).superblock);
        await target.replaceSmall(name, bytes);
      };
    },
  });
}

/** A volume with two DEKs under `old:a`, and a local: key beside it. */
async function volume() {
  const service = new ScriptedService();
  onTestFinished(() => service.end());
  const data = temporaryDirectory();
  const providers = new KeyProviders(kmsEnvironment(data), [
    { ...service.scheme, scheme: 'old' },
    localScheme,
  ]);
  await providers.open('local:x').ensure();
  const inner = await FsStore.open(join(data, 'v'), { create: true });
  let before = async (_name: string, _superblock: Superblock): Promise<void> => undefined;
  const store = watchedStore(inner, (...written) => before(...written));
  const shared = { store, providers, clock: systemClock, keyUri: 'old:a' };
  const create = { random: systemRandom, sizeBytes: 2 ** 30, suite: 2 } as const;
  let header = await VolumeHeader.create({ ...shared, ...create });
  await header.addPending({ ...shared, rewrite: false });
  await header.activatePending();
  onTestFinished(() => header.revoke());
  return {
    ...{ service, providers, store },
    get header() {
      return header;
    },
    beforeWrite: (hook: typeof before) => {
      before = hook;
    },
    move: (keyUri: string) => moveToKey(header, keyUri, { providers, clock: systemClock }),
    restore: (file: Uint8Array) => restoreHeader({ store, providers, pins: {}, file, force: true }),
    /** As after a crash and a start. */
    reopen: async () => {
      header.revoke();
      header = await VolumeHeader.open({ store, providers, pins: {}, log: nullLogger });
      return header.superblock.deks.map(({ keyUri, exposed }) => [keyUri, exposed]);
    },
    marks: () => header.superblock.deks.map(({ keyUri, exposed }) => [keyUri, exposed]),
  };
}

describe('the exposed mark', () => {
  beforeEach(expectNoLeakedSlots);

  it('is in both copies before a wrap by a local: key is written anywhere', async () => {
    const { store, beforeWrite, move, marks } = await volume();
    const written: string[] = [];
    beforeWrite(async (name, { deks }) => {
      if (!deks.some((dek) => dek.keyUri.startsWith('local:'))) return;
      written.push(name);
      const { copies } = await readHeaderCopies(store);
      const onDisk = copies.flatMap((copy) => copy.decoded.superblock.deks.map((dek) => dek.exposed));
      expect(onDisk).toEqual([true, true, true, true]);
    });
    await move('local:x');
    expect(written).toEqual(['superblock.new', 'superblock.bak']);
    expect(marks()).toEqual([
      ['local:x', true],
      ['local:x', true],
    ]);
  });

  it.each(['superblock.new', 'superblock.bak'])(
    'stays, over a restart too, where the move ends at %s',
    async (file) => {
      const { beforeWrite, move, reopen } = await volume();
      beforeWrite(async (name, { deks }) => {
        if (name === file && deks.some((dek) => dek.keyUri.startsWith('local:'))) throw ioError('write');
      });
      await expect(move('local:x')).rejects.toThrow('EIO');
      beforeWrite(async () => undefined);
      const uri = file === 'superblock.new' ? 'old:a' : 'local:x';
      expect(await reopen()).toEqual([
        [uri, true],
        [uri, true],
      ]);
    },
  );

  it('is not set for a local: key that is not there, or where it can not be written', async () => {
    const { beforeWrite, move, marks, reopen, service } = await volume();
    const none = [
      ['old:a', false],
      ['old:a', false],
    ];
    await expect(move('local:typo')).rejects.toMatchObject({ kind: 'refused' });
    expect(marks()).toEqual(none);
    service.queue.push('refused');
    await expect(move('local:x')).rejects.toMatchObject({ kind: 'refused' });
    expect(marks()).toEqual(none);
    beforeWrite(async (name) => {
      if (name === 'superblock.new') throw ioError('write');
    });
    await expect(move('local:x')).rejects.toThrow('EIO');
    expect(await reopen()).toEqual(none);
  });

  it('is not lost by moving back', async () => {
    const { move, marks } = await volume();
    await move('local:x');
    await move('old:a');
    expect(marks()).toEqual([
      ['old:a', true],
      ['old:a', true],
    ]);
  });

  it('is kept by a header backup of before, though that is forced into place', async () => {
    const { store, move, restore, reopen, header } = await volume();
    const file = await backUpHeader(store);
    await move('local:x');
    const { generation } = header.superblock;
    const { before, after } = await restore(file);
    expect([before?.deks[0].keyUri, after.deks[0].keyUri]).toEqual(['local:x', 'old:a']);
    expect(after.generation).toBe(generation + 1);
    const { copies, problems } = await readHeaderCopies(store);
    expect([copies.length, problems]).toEqual([2, []]);
    expect(await reopen()).toEqual([
      ['old:a', true],
      ['old:a', true],
    ]);
  });

  it('keeps such a backup out where the key that it names can not write it', async () => {
    const { store, move, restore, reopen, service } = await volume();
    const file = await backUpHeader(store);
    await move('local:x');
    // Two unwraps of the backup, then the wrap that carries the mark.
    service.queue.push('yes', 'yes', 'yes', 'refused');
    await expect(restore(file)).rejects.toMatchObject({ kind: 'refused' });
    service.queue.length = 0;
    expect(await reopen()).toEqual([
      ['local:x', true],
      ['local:x', true],
    ]);
  });

  it('does not change a backup that has it, or whose DEKs were never exposed', async () => {
    const { store, move, restore, reopen } = await volume();
    const unexposed = await backUpHeader(store);
    const bytes = (await readHeaderCopies(store)).copies[0].bytes;
    await restore(unexposed);
    expect((await readHeaderCopies(store)).copies.map((copy) => copy.bytes)).toEqual([bytes, bytes]);
    await move('local:x');
    const exposed = await backUpHeader(store);
    await move('old:a');
    await restore(exposed);
    expect(await reopen()).toEqual([
      ['local:x', true],
      ['local:x', true],
    ]);
  });
});
