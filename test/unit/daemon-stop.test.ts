import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { STOP_DEADLINE_MS } from '../../src/base/limits.js';
import { nullLogger } from '../../src/base/log.js';
import type { Engine, EngineOpenOptions, EngineVolume } from '../../src/daemon/engine.js';
import { ManagedVolume } from '../../src/daemon/managed-volume.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { systemRandom } from '../../src/keys/random.js';
import { VolumeHeader } from '../../src/keys/volume-header.js';
import { addon, type KeyHandle } from '../../src/native/addon.js';
import { FsStore } from '../../src/store/fs-store.js';
import { expectNoLeakedSlots, keyProviders, temporaryDirectory } from '../support/key-fixtures.js';
import { ManualClock } from '../support/manual-clock.js';
import { createVolume, WatchedDirectory } from '../support/watched-volumes.js';

/** An engine whose volumes stop as the test says. The real one can't be made to hang. */
class ScriptedEngine implements Engine {
  opened: EngineOpenOptions | undefined;
  readonly #stop: () => Promise<void>;

  constructor(stop: () => Promise<void>) {
    this.#stop = stop;
  }

  async open(options: EngineOpenOptions): Promise<EngineVolume> {
    this.opened = options;
    return { state: 'serving', failure: undefined, stop: this.#stop } as unknown as EngineVolume;
  }
}

async function openWith(stop: () => Promise<void>) {
  const directory = temporaryDirectory();
  const clock = new ManualClock();
  const providers = keyProviders(directory);
  const store = await FsStore.open(join(directory, 'v'), { create: true });
  const header = await VolumeHeader.create({
    ...{ store, providers, clock, random: systemRandom },
    ...{ sizeBytes: 2 ** 30, suite: 2, keyUri: 'local:default' },
  });
  header.revoke();
  const engine = new ScriptedEngine(stop);
  const volume = new ManagedVolume({ name: 'v', store, engine, providers, pins: {}, clock, log: nullLogger });
  await volume.open();
  // A handle of the test's own outlives the ring, so that it can be asked whether it was revoked.
  const dek = engine.opened?.deks.get(1) as KeyHandle;
  addon.keyRetain(dek);
  return { clock, volume, dek };
}

describe('closing a volume', () => {
  beforeEach(expectNoLeakedSlots);

  it('wipes its DEKs after the engine has stopped', async () => {
    let revokedBefore = true;
    let handle: KeyHandle | undefined;
    const { volume, dek } = await openWith(async () => {
      revokedBefore = addon.keyIsRevoked(handle as KeyHandle);
    });
    handle = dek;
    await volume.close();
    expect([revokedBefore, addon.keyIsRevoked(dek), volume.state]).toEqual([false, true, 'stopped']);
    addon.keyRelease(dek);
  });

  it('wipes its DEKs at the deadline though the engine hangs, and says that it was not clean', async () => {
    const { clock, volume, dek } = await openWith(() => new Promise(() => undefined));
    const closing = volume.close();
    clock.advance(STOP_DEADLINE_MS - 1);
    expect(addon.keyIsRevoked(dek)).toBe(false);
    clock.advance(1000);
    await expect(closing).rejects.toMatchObject({ code: 'FAILED' });
    expect([addon.keyIsRevoked(dek), volume.state, volume.device]).toEqual([true, 'stopped', undefined]);
    addon.keyRelease(dek);
    // What still hangs may write to the files later.
    await expect(volume.open()).rejects.toThrow('only a restart');
  });

  it('is not clean either where the engine gives up at the deadline by itself', async () => {
    const engine = { stop: (): Promise<void> => Promise.resolve() };
    const { clock, volume, dek } = await openWith(() => engine.stop());
    engine.stop = async () => clock.advance(STOP_DEADLINE_MS);
    await expect(volume.close()).rejects.toMatchObject({ code: 'FAILED' });
    expect(addon.keyIsRevoked(dek)).toBe(true);
    addon.keyRelease(dek);
  });

  it('wipes its DEKs where the engine fails to stop, and passes the failure on', async () => {
    const { volume, dek } = await openWith(() => Promise.reject(new Error('disk gone')));
    await expect(volume.close()).rejects.toThrow('disk gone');
    expect([addon.keyIsRevoked(dek), volume.state]).toEqual([true, 'stopped']);
    addon.keyRelease(dek);
  });
});

describe('a store that does not answer', () => {
  beforeEach(expectNoLeakedSlots);

  async function hanging() {
    const clock = new ManualClock();
    const watched = await new WatchedDirectory().start({ clock });
    const volume = await createVolume(watched.volumes, 'v', 'scripted:a');
    const mark = volume.setMarkedStopped.bind(volume);
    volume.setMarkedStopped = () => new Promise(() => undefined);
    const pass = async (ms: number): Promise<void> => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      clock.advance(ms);
    };
    return { watched, volume, mark, pass };
  }

  it('keeps no keys in memory past the deadline of a stop that can not be noted', async () => {
    const { watched, volume, pass } = await hanging();
    const stopping = watched.volumes.stop('v', STARTUP);
    stopping.catch(() => undefined);
    await pass(STOP_DEADLINE_MS - 1000);
    expect(volume.device).toBeDefined();
    await pass(1001);
    await expect(stopping).rejects.toMatchObject({ code: 'FAILED', message: /keys are wiped, but/ });
    expect([volume.state, volume.device]).toEqual(['stopped', undefined]);
    await watched.close();
  });

  it('makes a start fail at the same deadline, and what comes behind it has its turn', async () => {
    const { watched, volume, mark, pass } = await hanging();
    await volume.close();
    const starting = watched.volumes.start('v', STARTUP);
    starting.catch(() => undefined);
    await pass(STOP_DEADLINE_MS + 1);
    await expect(starting).rejects.toThrow('it stays as it was');
    volume.setMarkedStopped = mark;
    expect((await watched.volumes.start('v', STARTUP)).state).toBe('serving');
    await watched.close();
  });
});
