import { cpSync, existsSync, lstatSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { nullLogger } from '../../src/base/log.js';
import { formatUuid, type RandomSource } from '../../src/base/random.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import type { HeaderPins } from '../../src/keys/header-unwrap.js';
import { systemRandom } from '../../src/keys/random.js';
import { VolumeHeader } from '../../src/keys/volume-header.js';
import { addon } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import type { SuiteId } from '../../src/segment/format.js';
import { FsStore } from '../../src/store/fs-store.js';
import { Volume } from '../../src/volume/volume.js';
import { DaemonProcess, sealbd } from '../support/daemon-process.js';
import { expectNoLeakedSlots, keyProviders, memoryDirectory } from '../support/key-fixtures.js';
import { BLOCK, patternBlock, SMALL_TUNING } from '../support/volume-harness.js';

const cipher = new CipherPool({ threads: 1 });
const io = new Arena(1 << 20);
afterAll(async () => {
  await cipher.destroy();
  io.free();
});

/** Gives these bytes, whatever is asked for. */
function fixedRandom(bytes: Uint8Array): RandomSource {
  return {
    fill(target) {
      target.set(bytes);
      return target;
    },
  };
}

/** A header alone in a directory of its own; `uuid` makes the random source give that one. */
async function makeHeader(options: { suite: SuiteId; uuid?: Uint8Array; data?: string }) {
  const data = options.data ?? memoryDirectory();
  const store = await FsStore.open(memoryDirectory());
  const random = options.uuid === undefined ? systemRandom : fixedRandom(options.uuid);
  const providers = keyProviders(data);
  const { suite } = options;
  const make = {
    store,
    providers,
    suite,
    clock: systemClock,
    random,
    sizeBytes: 1 << 20,
    keyUri: 'local:default',
  };
  const header = await VolumeHeader.create(make);
  const { uuid } = header.superblock;
  header.revoke();
  const open = async (pins: HeaderPins): Promise<void> => {
    (await VolumeHeader.open({ store, providers, pins, log: nullLogger })).revoke();
  };
  return { data, uuid, open };
}

describe('pins', () => {
  beforeEach(expectNoLeakedSlots);

  it('of uuid, cipher and key let the volume itself in', async () => {
    const { uuid, open } = await makeHeader({ suite: 2 });
    await open({ uuid: formatUuid(uuid), suite: 2, keyUris: ['local:default'] });
  });

  it('a `none` volume never satisfies a pinned key: it has none', async () => {
    const { open } = await makeHeader({ suite: 0 });
    await expect(open({ keyUris: ['local:default'] })).rejects.toMatchObject({ code: 'INTEGRITY' });
    await expect(open({ keyUris: ['local:default'], suite: 0 })).rejects.toMatchObject({ code: 'INTEGRITY' });
  });

  it('a `none` superblock with the pinned uuid is no downgrade: it counts only where the cipher none is pinned', async () => {
    const sealed = await makeHeader({ suite: 2 });
    const forged = await makeHeader({ suite: 0, uuid: sealed.uuid });
    expect(forged.uuid).toEqual(sealed.uuid);
    const uuid = formatUuid(sealed.uuid);
    await expect(forged.open({ uuid })).rejects.toMatchObject({ code: 'INTEGRITY' });
    await expect(forged.open({ uuid, suite: 2 })).rejects.toMatchObject({ code: 'INTEGRITY' });
    await forged.open({ uuid, suite: 0 });
  });

  it('another cipher, another uuid, another key are each refused, and no key service is asked', async () => {
    const { data, uuid, open } = await makeHeader({ suite: 2 });
    // Were the key asked for, its absence would be the error.
    rmSync(join(data, 'keyring.json'));
    const good = formatUuid(uuid);
    for (const pins of [
      { suite: 1 as const },
      { uuid: good.replace(/^./, (digit) => (digit === '0' ? '1' : '0')) },
      { keyUris: ['local:other'] },
    ]) {
      await expect(open({ uuid: good, ...pins })).rejects.toMatchObject({ code: 'INTEGRITY' });
    }
  });
});

describe('the daemon with pins', () => {
  it('refuses a directory put in place of the pinned volume, whatever of it differs, with exit 5 and in state failed', async () => {
    const directory = memoryDirectory();
    const data = join(directory, 'data');
    const first = await DaemonProcess.start(data, ['--default-volume', 'right:1M']);
    await first.ok('volume', 'create', 'other', '--size', '1M');
    await first.ok('volume', 'create', 'plain', '--size', '1M', '--cipher', 'none');
    await first.ok('volume', 'create', 'weak', '--size', '1M', '--cipher', 'aes-256-ctr');
    await first.ok('volume', 'create', 'foreign', '--size', '1M', '--key', 'local:foreign');
    const { uuid } = await first.json<{ uuid: string }>(['volume', 'info', 'right']);
    await first.stop();
    // Each stands where the volume `right` is expected.
    const names = ['right', 'other', 'plain', 'weak', 'foreign'];
    const pin = `uuid = "${uuid}"\ncipher = "aes-256-gcm"\nkey = "local:default"\n`;
    const config = join(directory, 'config.toml');
    writeFileSync(config, names.map((name) => `[volumes.${name}]\n${pin}`).join(''));
    const daemon = await DaemonProcess.start(data, ['--config', config]);
    for (const name of names) {
      const { state } = await daemon.json<{ state: string }>(['volume', 'info', name]);
      const { code } = await daemon.run(['volume', 'start', name]);
      const wanted = name === 'right' ? { state: 'serving', code: 0 } : { state: 'failed', code: 5 };
      expect({ state, code }, name).toEqual(wanted);
    }
  });

  it('does not make an empty volume in place of a pinned one that was removed', async () => {
    const directory = memoryDirectory();
    const data = join(directory, 'data');
    const first = await DaemonProcess.start(data, ['--default-volume', 'v:1M']);
    const { uuid } = await first.json<{ uuid: string }>(['volume', 'info', 'v']);
    await first.stop();
    rmSync(join(data, 'volumes', 'v'), { recursive: true });
    const config = join(directory, 'config.toml');
    writeFileSync(config, `[volumes.v]\nuuid = "${uuid}"\nkey = "local:default"\n`);
    const args = ['serve', '--data', data, '--listen', '127.0.0.1:0', '--config', config];
    const second = await sealbd([...args, '--default-volume', 'v:1M']);
    expect(second.code).toBe(1);
    expect(second.stderr).toContain(uuid);
    expect(existsSync(join(data, 'volumes', 'v'))).toBe(false);
  });

  it('that prove little are pointed out at the start: a uuid without a key, and a local key', async () => {
    const directory = memoryDirectory();
    const config = join(directory, 'config.toml');
    const uuid = '53b87fbc-f65a-4d5f-8e45-896aac8f877e';
    writeFileSync(config, `[volumes.a]\nuuid = "${uuid}"\n[volumes.b]\nkey = "local:default"\n`);
    const daemon = await DaemonProcess.start(join(directory, 'data'), ['--config', config]);
    const warnings = daemon.log().filter((line) => line.level === 40 && /pinned/.test(line.msg));
    expect(warnings.map((line) => line.volume).sort()).toEqual(['a', 'b']);
    await daemon.stop();
  });

  it('refuses the superblock of another volume, and the wrapped DEK of another volume, as damage', async () => {
    const data = join(memoryDirectory(), 'data');
    const first = await DaemonProcess.start(data, ['--default-volume', 'v:1M']);
    await first.ok('volume', 'create', 'w', '--size', '1M');
    await first.stop();
    const file = (volume: string, name: string): string => join(data, 'volumes', volume, name);
    const mine = readFileSync(file('v', 'superblock'));
    const other = readFileSync(file('w', 'superblock'));
    const tryWith = async (superblock: Buffer): Promise<{ state: string; code: number | null }> => {
      for (const name of ['superblock', 'superblock.bak']) writeFileSync(file('v', name), superblock);
      const daemon = await DaemonProcess.start(data);
      const { state } = await daemon.json<{ state: string }>(['volume', 'info', 'v']);
      const { code } = await daemon.run(['volume', 'start', 'v']);
      await daemon.stop();
      return { state, code };
    };
    // Its own uuid, its own DEK, all in order: but the checkpoint is that of another volume.
    expect(await tryWith(other)).toEqual({ state: 'failed', code: 5 });
    // The blob and the check value of w, with the CRC made good.
    const mixed = Buffer.from(mine);
    other.copy(mixed, 64 + 20, 64 + 20, 64 + 36);
    const blob = wrappedAt(mine);
    other.copy(mixed, blob, wrappedAt(other), wrappedAt(other) + 60);
    mixed.writeUInt32LE(addon.crc32c(mixed.subarray(0, -20), 0), mixed.length - 20);
    expect(await tryWith(mixed)).toEqual({ state: 'key-invalid', code: 5 });
    expect(await tryWith(mine)).toEqual({ state: 'serving', code: 0 });
  });
});

/** Where the wrapped DEK of the first record starts (docs/FORMAT.md). */
function wrappedAt(superblock: Buffer): number {
  let at = 64 + 36;
  for (let i = 0; i < 3; i++) at += 2 + superblock.readUInt16LE(at);
  return at + 2;
}

describe('files of a volume', () => {
  it('that are symbolic links are not followed: nothing outside the directory is read or overwritten', async () => {
    const outside = join(memoryDirectory(), 'precious');
    writeFileSync(outside, 'precious');
    const store = await FsStore.open(memoryDirectory());
    for (const name of ['checkpoint', 'checkpoint.tmp', 'seg-0000000000000001']) {
      symlinkSync(outside, join(store.path, name));
    }
    await expect(store.readSmall('checkpoint')).rejects.toMatchObject({ code: 'ELOOP' });
    for (const access of ['read', 'write'] as const) {
      await expect(store.open('seg-0000000000000001', access)).rejects.toMatchObject({ code: 'ELOOP' });
    }
    // A replacement takes the place of the links themselves.
    await store.replaceSmall('checkpoint', new Uint8Array(10));
    expect(lstatSync(join(store.path, 'checkpoint')).isFile()).toBe(true);
    expect(existsSync(join(store.path, 'checkpoint.tmp'))).toBe(false);
    expect(readFileSync(outside, 'utf8')).toBe('precious');
  });
});

describe('a tail', () => {
  it('that another volume wrote under the same DEK is damage, not the tail of this one', async () => {
    const key = new Uint8Array(32).fill(7);
    const deks = new Map([[1, addon.keyImport(Uint8Array.from(key))]]);
    const open = async (path: string, uuid: number, fresh: boolean): Promise<Volume> =>
      Volume.open({
        name: 'v',
        uuid: new Uint8Array(16).fill(uuid),
        sizeBytes: 64 * BLOCK,
        suite: 2,
        deks,
        activeDek: 1,
        store: await FsStore.open(path),
        cipher,
        clock: systemClock,
        log: nullLogger,
        fresh,
        tuning: SMALL_TUNING,
      });
    try {
      const [mine, theirs] = [memoryDirectory(), memoryDirectory()];
      await (await open(mine, 1, true)).stop(1000);
      const other = await open(theirs, 2, true);
      io.bytes.set(patternBlock(3, 9));
      await other.write(io, 0, 3 * BLOCK, BLOCK);
      await other.flush();
      const copy = memoryDirectory();
      cpSync(theirs, copy, { recursive: true });
      await other.stop(1000);
      cpSync(join(copy, 'seg-0000000000000001'), join(mine, 'seg-0000000000000001'));
      await expect(open(mine, 1, false)).rejects.toMatchObject({
        code: 'INTEGRITY',
        message: expect.stringContaining('another volume'),
      });
    } finally {
      for (const handle of deks.values()) addon.keyRelease(handle);
    }
  });
});

describe('a volume of the cipher none', () => {
  it('can not be made under a pinned key, where it would never open', async () => {
    const directory = memoryDirectory();
    const config = join(directory, 'config.toml');
    writeFileSync(config, '[volumes.v]\nkey = "local:default"\n');
    const daemon = await DaemonProcess.start(join(directory, 'data'), ['--config', config]);
    const made = await daemon.run(['volume', 'create', 'v', '--size', '1M', '--cipher', 'none']);
    expect(made.code).toBe(1);
    expect(made.stderr).toContain('pins the key');
  });
});
