import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Suite } from '../../src/base/ciphers.js';
import { systemClock } from '../../src/base/clock.js';
import { nullLogger } from '../../src/base/log.js';
import { formatUuid } from '../../src/base/random.js';
import { backUpHeader, decodeHeaderBackup, restoreHeader } from '../../src/keys/header-backup.js';
import type { HeaderPins } from '../../src/keys/header-unwrap.js';
import { systemRandom } from '../../src/keys/random.js';
import { VolumeHeader } from '../../src/keys/volume-header.js';
import { addon } from '../../src/native/addon.js';
import { FsStore } from '../../src/store/fs-store.js';
import { expectNoLeakedSlots, keyProviders, temporaryDirectory } from '../support/key-fixtures.js';

const GIB = 2 ** 30;

async function setup(suite: Suite = 2) {
  const directory = temporaryDirectory();
  const providers = keyProviders(directory);
  const store = await FsStore.open(join(directory, 'v'), { create: true });
  const shared = { store, providers, clock: systemClock, random: systemRandom };
  const header = await VolumeHeader.create({ ...shared, sizeBytes: GIB, suite, keyUri: 'local:default' });
  const open = (pins: HeaderPins = {}) => VolumeHeader.open({ store, providers, pins, log: nullLogger });
  const file = (name: string) => join(store.path, name);
  return { directory, providers, store, header, open, file };
}

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at < 0 ? bytes.length + at : at] ^= 1;
  writeFileSync(path, bytes);
}

describe('a volume header', () => {
  beforeEach(expectNoLeakedSlots);

  it.each([0, 1, 2] as const)('of suite %i opens with the DEK that it was made with', async (suite) => {
    const { header, open } = await setup(suite);
    const again = await open();
    const { uuid, generation, sizeBytes } = header.superblock;
    expect(again.superblock).toMatchObject({ uuid, generation, sizeBytes, suite });
    expect(again.deks.size).toBe(suite === 0 ? 0 : 1);
    for (const [id, handle] of header.deks) expect(addon.keyEquals(again.deks.get(id)!, handle)).toBe(true);
    for (const one of [header, again]) one.revoke();
  });

  it('marks a DEK under local: as exposed', async () => {
    const { header } = await setup();
    expect(header.superblock.deks[0].exposed).toBe(true);
    header.revoke();
  });

  it('revoke wipes its DEKs for whoever holds them', async () => {
    const { header } = await setup();
    const handle = header.deks.get(1)!;
    addon.keyRetain(handle);
    header.revoke();
    expect(addon.keyIsRevoked(handle)).toBe(true);
    addon.keyRelease(handle);
  });

  it.each(['superblock', 'superblock.bak'])(
    'survives the loss and the damage of %s, and repairs it',
    async (name) => {
      const { header, open, file } = await setup();
      header.revoke();
      const good = readFileSync(file(name));
      rmSync(file(name));
      (await open()).revoke();
      expect(readFileSync(file(name))).toEqual(good);
      flip(file(name), 70);
      (await open()).revoke();
      expect(readFileSync(file(name))).toEqual(good);
    },
  );

  it('takes the higher generation where the copies differ', async () => {
    const { header, open, file } = await setup();
    const old = readFileSync(file('superblock'));
    await header.update({ sizeBytes: 2 * GIB });
    header.revoke();
    writeFileSync(file('superblock'), old);
    const again = await open();
    expect(again.superblock).toMatchObject({ generation: 2, sizeBytes: 2 * GIB });
    again.revoke();
    expect(readFileSync(file('superblock'))).toEqual(readFileSync(file('superblock.bak')));
  });

  it('passes over a higher generation that does not authenticate', async () => {
    const { header, open, file } = await setup();
    header.revoke();
    const forged = readFileSync(file('superblock'));
    forged.writeBigUInt64LE(99n, 32);
    forged.writeUInt32LE(addon.crc32c(forged.subarray(0, -20), 0), forged.length - 20);
    writeFileSync(file('superblock'), forged);
    const again = await open();
    expect(again.superblock.generation).toBe(1);
    again.revoke();
  });

  it('is an INTEGRITY error where both copies are damaged or lost', async () => {
    const { header, open, file } = await setup();
    header.revoke();
    for (const name of ['superblock', 'superblock.bak']) flip(file(name), 50);
    await expect(open()).rejects.toMatchObject({ code: 'INTEGRITY', message: expect.stringMatching(/CRC/) });
    for (const name of ['superblock', 'superblock.bak']) rmSync(file(name));
    await expect(open()).rejects.toMatchObject({
      code: 'INTEGRITY',
      message: expect.stringMatching(/missing/),
    });
  });

  it('is a damaged key, not damaged data, where the DEK is another one', async () => {
    const { directory, header, open, file, providers } = await setup();
    const { uuid, deks } = header.superblock;
    const other = addon.keyGenerate();
    const wrapped = await providers
      .open('local:default')
      .wrap(other, { volumeUuid: uuid, dekId: 1, exposed: true });
    await header.update({ deks: [{ ...deks[0], wrapped: wrapped.blob }] });
    for (const release of [() => header.revoke(), () => addon.keyRelease(other)]) release();
    await expect(open()).rejects.toMatchObject({ kind: 'damaged', code: 'INTEGRITY' });
    expect(readFileSync(file('superblock')).length).toBeGreaterThan(0);
    expect(directory).toBeTruthy();
  });

  it('is refused, and the older copy not tried, where the key of the newest is gone', async () => {
    const { directory, header, open, file } = await setup();
    const old = readFileSync(file('superblock.bak'));
    await header.update({ sizeBytes: 2 * GIB });
    header.revoke();
    writeFileSync(file('superblock.bak'), old);
    rmSync(join(directory, 'keyring.json'));
    await expect(open()).rejects.toMatchObject({ kind: 'refused', code: 'KEY_UNAVAILABLE' });
    expect(readFileSync(file('superblock.bak'))).toEqual(old);
  });

  it('that differs from a pin is refused before the key is asked for', async () => {
    const { directory, header, open } = await setup();
    const uuid = formatUuid(header.superblock.uuid);
    header.revoke();
    (await open({ uuid, suite: 2, keyUris: ['local:default'] })).revoke();
    rmSync(join(directory, 'keyring.json'));
    const wrong: HeaderPins[] = [
      { uuid: uuid.replace(/^./, 'g') },
      { suite: 1 },
      { keyUris: ['local:other'] },
    ];
    for (const pins of wrong) {
      await expect(open(pins)).rejects.toMatchObject({
        code: 'INTEGRITY',
        message: expect.stringMatching(/pins/),
      });
    }
  });

  it('leaves nothing behind where it cannot be made', async () => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, 'keyring.json'), '{"keys": [{"key": "', { mode: 0o600 });
    const store = await FsStore.open(join(directory, 'v'), { create: true });
    const shared = { store, providers: keyProviders(directory), clock: systemClock, random: systemRandom };
    const making = VolumeHeader.create({ ...shared, sizeBytes: GIB, suite: 2, keyUri: 'local:default' });
    await expect(making).rejects.toMatchObject({ kind: 'damaged' });
    expect(await store.list()).toEqual([]);
  });
});

describe('a header backup', () => {
  beforeEach(expectNoLeakedSlots);

  it('brings back a volume that lost both copies', async () => {
    const { store, providers, header, open, file } = await setup();
    header.revoke();
    const backup = await backUpHeader(store);
    for (const name of ['superblock', 'superblock.bak']) rmSync(file(name));
    await restoreHeader({ store, providers, pins: {}, file: backup, force: false });
    (await open()).revoke();
  });

  it('is refused with any byte changed', async () => {
    const { store, header } = await setup();
    header.revoke();
    const backup = await backUpHeader(store);
    for (let at = 0; at < backup.length; at += 1) {
      const changed = Uint8Array.from(backup);
      changed[at] ^= 0x10;
      expect(() => decodeHeaderBackup(changed), `byte ${at}`).toThrow(
        expect.objectContaining({ code: 'INTEGRITY' }),
      );
    }
  });

  it('of another volume is refused, with force too, by superblock or by checkpoint', async () => {
    const [mine, other] = [await setup(), await setup()];
    for (const { header } of [mine, other]) header.revoke();
    const { store, file } = mine;
    const restore = async () =>
      restoreHeader({
        store,
        providers: other.providers,
        pins: {},
        file: await backUpHeader(other.store),
        force: true,
      });
    await expect(restore()).rejects.toMatchObject({ code: 'CONFLICT' });
    for (const name of ['superblock', 'superblock.bak']) rmSync(file(name));
    const checkpoint = Buffer.alloc(128);
    checkpoint.write('SBDCKP1\n');
    checkpoint.set(mine.header.superblock.uuid, 16);
    writeFileSync(file('checkpoint'), checkpoint);
    await expect(restore()).rejects.toMatchObject({ code: 'CONFLICT' });
  });

  it('of an older generation needs force', async () => {
    const { store, providers, header, open } = await setup();
    const backup = await backUpHeader(store);
    await header.update({ sizeBytes: 2 * GIB });
    header.revoke();
    const restore = (force: boolean) => restoreHeader({ store, providers, pins: {}, file: backup, force });
    await expect(restore(false)).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringMatching(/--force/),
    });
    await restore(true);
    const again = await open();
    expect(again.superblock.sizeBytes).toBe(GIB);
    again.revoke();
  });

  describe('that lacks a DEK of the superblock in place, which the data is under,', () => {
    /** The only thing that says which DEK the data is under is the root of the checkpoint. */
    async function rotated(dataUnder = 2) {
      const made = await setup();
      const { store, providers, header, file } = made;
      const root = Buffer.alloc(128);
      root.write('SBDCKP1\n');
      root.writeUInt32LE(dataUnder, 12);
      root.set(header.superblock.uuid, 16);
      writeFileSync(file('checkpoint'), root);
      const backup = await backUpHeader(store);
      await header.addPending({ providers, clock: systemClock, keyUri: 'local:default', rewrite: true });
      await header.activatePending();
      await header.dropRetired(new Set([2]));
      header.revoke();
      const restore = (force: boolean) => restoreHeader({ store, providers, pins: {}, file: backup, force });
      return { ...made, backup, restore };
    }

    it('is refused where that superblock opens, with force too', async () => {
      const { open, restore } = await rotated();
      for (const force of [false, true])
        await expect(restore(force)).rejects.toMatchObject({
          ...{ code: 'CONFLICT', message: expect.stringMatching(/has DEK 2, .* would be lost/) },
        });
      const header = await open();
      expect([...header.deks.keys()]).toEqual([2]);
      header.revoke();
    });

    it('is refused where one copy of it opens only', async () => {
      const { open, restore, file } = await rotated();
      flip(file('superblock'), -1);
      await expect(restore(true)).rejects.toMatchObject({ code: 'CONFLICT' });
      (await open()).revoke();
    });

    it('is refused while its key is, since that may come back', async () => {
      const { directory, file, restore } = await rotated();
      rmSync(join(directory, 'keyring.json'));
      const before = readFileSync(file('superblock'));
      await expect(restore(true)).rejects.toMatchObject({
        ...{ code: 'CONFLICT', message: expect.stringMatching(/should it open yet: .*keyring\.json/) },
      });
      expect(readFileSync(file('superblock'))).toEqual(before);
    });

    it('takes its place with force where nothing is under that DEK', async () => {
      const { open, restore } = await rotated(1);
      await restore(true);
      const header = await open();
      expect([...header.deks.keys()]).toEqual([1]);
      header.revoke();
    });

    it('takes its place with force where neither copy is authentic', async () => {
      const { open, restore, file } = await rotated();
      for (const name of ['superblock', 'superblock.bak']) flip(file(name), -1);
      await expect(restore(false)).rejects.toMatchObject({ message: expect.stringMatching(/--force/) });
      await restore(true);
      const header = await open();
      expect([...header.deks.keys()]).toEqual([1]);
      header.revoke();
    });
  });

  it('whose key is refused changes nothing', async () => {
    const { directory, store, providers, header, file } = await setup();
    header.revoke();
    const backup = await backUpHeader(store);
    rmSync(join(directory, 'keyring.json'));
    flip(file('superblock'), 50);
    const before = readFileSync(file('superblock'));
    const restoring = restoreHeader({ store, providers, pins: {}, file: backup, force: true });
    await expect(restoring).rejects.toMatchObject({ kind: 'refused' });
    expect(readFileSync(file('superblock'))).toEqual(before);
  });
});
