import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Caller } from '../../src/admin/backend.js';
import { LOOK_WAIT_MS } from '../../src/base/limits.js';
import { takeInventory } from '../../src/daemon/key-inventory.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { withKeys } from '../../src/keys/dek-ring.js';
import { keysInUse } from '../../src/keys/key-usage.js';
import { decodeSuperblock, encodeSuperblock, type Superblock } from '../../src/keys/superblock.js';
import { SUITE_NONE } from '../../src/native/addon.js';
import { gate } from '../support/hooked-store.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';
import { ManualClock } from '../support/manual-clock.js';
import type { ScriptedService } from '../support/scripted-provider.js';
import { createVolume, type Watched, WatchedDirectory } from '../support/watched-volumes.js';

const CLI: Caller = { kind: 'cli', peer: 'unix' };
const COPIES = ['superblock', 'superblock.bak'];

/** Of the only row: whether the key may go, and why not. */
async function verdict({ keys }: Watched, keyUri: string) {
  const [{ safeToDelete, caveats, volumes }] = await keys.usage(keyUri);
  return { safeToDelete, caveats, volumes: volumes.map(({ volume }) => volume) };
}

/** The superblock of the volume `v`, and what puts another one, under the public key, into its place. */
function superblockOf(directory: WatchedDirectory) {
  const path = (name: string): string => join(directory.path, 'volumes/v', name);
  const bytes = readFileSync(path('superblock'));
  const write = (content: Uint8Array, names = COPIES): void => {
    for (const name of names) writeFileSync(path(name), content);
  };
  const forge = (change: Partial<Superblock>, names?: string[]): void => {
    const superblock = { ...decodeSuperblock(bytes).superblock, ...change };
    const forged = withKeys(new Map(), (keyOf) => encodeSuperblock(superblock, () => keyOf(0)));
    write(forged, names);
  };
  return { bytes, write, forge };
}

/** The service holds its `nth` answer from now on back until the gate opens. */
function holdBack(service: ScriptedService, nth: number): { open(): void; held: Promise<void> } {
  const ask = service.ask.bind(service);
  const waiting = gate();
  const reached = gate();
  let asked = 0;
  service.ask = async () => {
    asked += 1;
    if (asked === nth) {
      reached.open();
      await waiting.opened;
    }
    return ask();
  };
  return { open: waiting.open, held: reached.opened };
}

describe('a key is not called safe to delete', () => {
  beforeEach(expectNoLeakedSlots);

  it('where the superblock of a volume that is not open claims to be none, and so to need no key', async () => {
    const directory = new WatchedDirectory();
    const first = await directory.start();
    await createVolume(first.volumes, 'v', 'scripted:a');
    await first.volumes.stop('v', STARTUP);
    const { forge, write, bytes } = superblockOf(directory);
    const none: Partial<Superblock> = { suite: SUITE_NONE, activeDek: 0, deks: [] };
    // In this run it was proven: what it needed then it needs still, whatever is on the disk now.
    forge(none);
    expect(await verdict(first, 'scripted:a')).toMatchObject({ safeToDelete: false, volumes: ['v'] });
    expect(await verdict(first, 'other:b')).toMatchObject({
      safeToDelete: false,
      caveats: expect.arrayContaining([expect.stringContaining('not the one that was proven')]),
    });
    write(bytes);
    expect(await verdict(first, 'other:b')).toMatchObject({ safeToDelete: true });
    await first.close();

    forge(none);
    const second = await directory.start();
    expect(second.volumes.get('v').keyCheck?.state).toBe('valid');
    expect(await verdict(second, 'scripted:a')).toMatchObject({
      safeToDelete: false,
      caveats: expect.arrayContaining([expect.stringContaining('is not proven')]),
    });
    write(bytes);
    await second.volumes.checkKey('v', CLI);
    expect(await verdict(second, 'scripted:a')).toMatchObject({ safeToDelete: false, volumes: ['v'] });
    expect(await verdict(second, 'other:b')).toMatchObject({ safeToDelete: true });
    await second.close();
  });

  it('where the key of a volume that is not open could not be asked', async () => {
    const directory = new WatchedDirectory();
    const first = await directory.start();
    await createVolume(first.volumes, 'v', 'scripted:a');
    await first.close();
    directory.one.answer = 'unreachable';
    const second = await directory.start();
    expect((await verdict(second, 'other:b')).safeToDelete).toBe(false);
    directory.one.answer = 'yes';
    await second.watchdog.check('v');
    expect((await verdict(second, 'other:b')).safeToDelete).toBe(true);
    await second.close();
  });

  it('where a superblock that waits to be proven names it, or can not be read', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    const { forge, write } = superblockOf(directory);
    const { deks } = watched.volumes.get('v').superblock!;
    forge({ deks: deks.map((dek) => ({ ...dek, keyUri: 'other:b', resolvedKeyId: 'other:b' })) }, [
      'superblock.new',
    ]);
    expect(await verdict(watched, 'other:b')).toMatchObject({ safeToDelete: false, volumes: ['v'] });
    write(Buffer.from('half a superblock'), ['superblock.new']);
    expect(await verdict(watched, 'other:c')).toMatchObject({ safeToDelete: false, volumes: [] });
    await watched.close();
  });

  it('while a volume moves to it', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    for (const nth of [1, 2]) {
      const { open, held } = holdBack(directory.other, nth);
      const moving = watched.keys.set('v', 'other:b', CLI);
      await held;
      let told = false;
      const asked = verdict(watched, 'other:b').finally(() => {
        told = true;
      });
      await new Promise((resolve) => setImmediate(resolve));
      expect(told).toBe(false);
      open();
      expect((await asked).safeToDelete).toBe(false);
      await moving;
      await watched.keys.set('v', 'scripted:a', CLI);
    }
    await watched.close();
  });

  it('while a move to it fails: what came of that is another question', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    const { open, held } = holdBack(directory.other, 1);
    directory.other.queue.push('refused');
    const moving = watched.keys.set('v', 'other:b', CLI);
    const failed = expect(moving).rejects.toThrow('refused');
    await held;
    const asked = verdict(watched, 'other:b');
    open();
    expect(await asked).toMatchObject({
      safeToDelete: false,
      caveats: expect.arrayContaining([expect.stringContaining('on its way to other:b')]),
    });
    await failed;
    expect((await verdict(watched, 'other:b')).safeToDelete).toBe(true);
    await watched.close();
  });

  it('while a volume is made under it', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    const { open, held } = holdBack(directory.one, 2);
    const creating = createVolume(watched.volumes, 'v', 'scripted:a');
    await held;
    expect((await verdict(watched, 'scripted:a')).safeToDelete).toBe(false);
    open();
    await creating;
    expect(await verdict(watched, 'scripted:a')).toMatchObject({ safeToDelete: false, volumes: ['v'] });
    await watched.volumes.delete('v', CLI);
    expect((await verdict(watched, 'scripted:a')).safeToDelete).toBe(true);
    await watched.close();
  });

  it('while an operation on a volume does not end: what is known of it is told, with a doubt', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    const clock = new ManualClock();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    const { open, held } = holdBack(directory.other, 1);
    const moving = watched.keys.set('v', 'other:b', CLI);
    await held;
    const taken = takeInventory(watched.volumes, clock);
    clock.advance(LOOK_WAIT_MS);
    const { volumes, doubts } = await taken;
    expect(keysInUse(volumes).map(({ keyUri }) => keyUri)).toEqual(['scripted:a']);
    expect(doubts).toContainEqual(expect.stringContaining('did not end in 30s'));
    open();
    await moving;
    await watched.close();
  });

  it('while a header backup is restored', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    const file = await watched.volumes.backUpHeader('v');
    await watched.keys.set('v', 'other:b', CLI);
    await watched.volumes.stop('v', CLI);
    const { open, held } = holdBack(directory.one, 1);
    const restoring = watched.volumes.restoreHeader('v', file, true, CLI);
    await held;
    const asked = verdict(watched, 'scripted:a');
    open();
    expect(await asked).toMatchObject({ safeToDelete: false });
    await restoring;
    expect(await verdict(watched, 'scripted:a')).toMatchObject({ safeToDelete: false, volumes: ['v'] });
    await watched.close();
  });
});
