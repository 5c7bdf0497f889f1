/**
 * A volume's keys change hands, and the power goes, the process dies or a write fails after every durable step: the
 * volume opens each time, with the old key or with the new one, and once the command has answered, with the new one alone.
 */
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { nullLogger } from '../../src/base/log.js';
import { systemRandom } from '../../src/keys/random.js';
import { moveToKey, rewrapUnderSameKey } from '../../src/keys/rewrap.js';
import { VolumeHeader } from '../../src/keys/volume-header.js';
import { addon } from '../../src/native/addon.js';
import { FsStore } from '../../src/store/fs-store.js';
import type { Store, StoreFile } from '../../src/store/store.js';
import { ioError } from '../support/hooked-store.js';
import { expectNoLeakedSlots, keyProviders, memoryDirectory } from '../support/key-fixtures.js';
import { PowerLossStore } from '../support/power-loss-store.js';
import { testSeed } from '../support/seeded-random.js';
import { StepStore } from '../support/step-store.js';
import { seededRandom } from '../support/volume-harness.js';

const OLD = 'local:old';
const NEW = 'local:new';
const LOSSES_PER_STEP = 8;

const OPERATIONS = {
  'key set': (header: VolumeHeader, data: string) => moveToKey(header, NEW, servicesOf(data)),
  'key rewrap': (header: VolumeHeader, data: string) => rewrapUnderSameKey(header, servicesOf(data)),
};
type Operation = keyof typeof OPERATIONS;

function servicesOf(data: string) {
  return { providers: keyProviders(data), clock: systemClock };
}

interface Scene {
  readonly data: string;
  readonly losing: PowerLossStore;
  readonly store: StepStore;
  readonly header: VolumeHeader;
}

/** A volume with two DEKs under OLD, in a store that tells of every step. */
async function scene(): Promise<Scene> {
  const data = memoryDirectory();
  const services = servicesOf(data);
  for (const uri of [OLD, NEW]) await services.providers.open(uri).ensure();
  const losing = new PowerLossStore(await FsStore.open(join(data, 'v'), { create: true }));
  const store = new StepStore(losing);
  const identity = { sizeBytes: 2 ** 30, suite: 2, keyUri: OLD } as const;
  const header = await VolumeHeader.create({ ...services, ...identity, store, random: systemRandom });
  onTestFinished(() => header.revoke());
  await header.addPending({ ...services, keyUri: OLD, rewrite: false });
  await header.activatePending();
  return { data, losing, store, header };
}

function wrapsOf({ superblock }: VolumeHeader): string {
  return superblock.deks.map((dek) => `${dek.keyUri} ${Buffer.from(dek.wrapped).toString('hex')}`).join();
}

/** Opens a copy of the volume with the keys of `data`; returns its wraps. */
async function open(path: string, data: string, header: VolumeHeader): Promise<string> {
  const store: Store = await FsStore.open(path);
  const again = await VolumeHeader.open({
    ...{ store, providers: keyProviders(data), pins: {}, log: nullLogger },
  });
  try {
    expect(again.deks.size).toBe(2);
    for (const [id, handle] of again.deks) expect(addon.keyEquals(handle, header.deks.get(id)!)).toBe(true);
    // What ends in .tmp is the engine's to remove.
    expect(await store.list()).not.toContain('superblock.new');
    expect(await store.readSmall('superblock')).toEqual(await store.readSmall('superblock.bak'));
    return wrapsOf(again);
  } finally {
    again.revoke();
  }
}

const CHANGES = ['create', 'rename', 'syncDirectory', 'remove'] as const;

/** Runs every change of the directory itself through `around`. */
function onEveryChange(losing: PowerLossStore, around: (change: () => Promise<void>) => Promise<void>): void {
  for (const name of CHANGES) {
    const original = losing[name].bind(losing) as (...args: unknown[]) => Promise<unknown>;
    const changed = async (...args: unknown[]): Promise<unknown> => {
      let result: unknown;
      try {
        await around(async () => {
          result = await original(...args);
        });
        return result;
      } catch (error) {
        await (result as StoreFile | undefined)?.close();
        throw error;
      }
    };
    Object.assign(losing, { [name]: changed });
  }
}

/** A data directory whose keyring has lost one key. */
async function without(data: string, name: string): Promise<string> {
  const directory = memoryDirectory();
  const keyring = JSON.parse(await readFile(join(data, 'keyring.json'), 'utf8')) as {
    keys: { name: string }[];
  };
  keyring.keys = keyring.keys.filter((key) => key.name !== name);
  await writeFile(join(directory, 'keyring.json'), JSON.stringify(keyring), { mode: 0o600 });
  return directory;
}

describe.each(Object.keys(OPERATIONS) as Operation[])('%s', (operation) => {
  beforeEach(expectNoLeakedSlots);

  it('leaves a volume that opens where the power goes after any step of it', async () => {
    const random = seededRandom(testSeed(`power loss in ${operation}`));
    const { data, losing, store, header } = await scene();
    const before = wrapsOf(header);
    const images: { step: string; path: string }[] = [];
    const lose = async (step: string): Promise<void> => {
      for (let i = 0; i < LOSSES_PER_STEP; i += 1) {
        const path = join(data, `image-${images.length}`);
        await losing.lose(path, random);
        images.push({ step, path });
      }
    };
    await lose('before it');
    store.onStep = lose;
    await OPERATIONS[operation](header, data);
    store.onStep = async () => undefined;
    const after = wrapsOf(header);
    const steps = [...new Set(images.map(({ step }) => step))];
    expect(steps).toEqual([
      'before it',
      'replace superblock.new',
      'promote superblock.new to superblock',
      'replace superblock.bak',
    ]);
    for (const { step, path } of images) {
      const wraps = await open(path, data, header);
      const committed = steps.indexOf(step) >= steps.indexOf('promote superblock.new to superblock');
      expect([step, wraps]).toEqual([step, committed ? after : before]);
    }
    expect(after).not.toBe(before);
  });

  it('leaves a volume that opens where the process dies at any step, also between a rename and its sync', async () => {
    const { data, losing, header } = await scene();
    const before = wrapsOf(header);
    const { path } = losing;
    const images: string[] = [];
    onEveryChange(losing, async (change) => {
      await change();
      const image = join(data, `image-${images.length}`);
      await cp(path, image, { recursive: true });
      images.push(image);
    });
    await OPERATIONS[operation](header, data);
    const after = wrapsOf(header);
    expect(images.length).toBeGreaterThan(6);
    const found = [];
    for (const image of images) found.push(await open(image, data, header));
    expect(new Set(found)).toEqual(new Set([before, after]));
    // Once it has happened it stays so.
    expect(found.lastIndexOf(before)).toBeLessThan(found.indexOf(after));
  });

  it.each([
    { when: 'before', what: 'is not done' },
    { when: 'after', what: 'is done, and told as failed' },
  ])('leaves a volume that opens where a step of it $what, and can be asked for again', async ({ when }) => {
    let failures = 0;
    for (let failing = 0; failures === failing; failing += 1) {
      const { data, losing, header } = await scene();
      let step = 0;
      let over = false;
      onEveryChange(losing, async (change) => {
        const fails = step === failing && !over;
        step += 1;
        if (!fails || when === 'after') await change();
        if (!fails) return;
        failures += 1;
        throw ioError(`step ${failing}`);
      });
      const error = await OPERATIONS[operation](header, data).catch((reason: unknown) => reason);
      over = true;
      expect(error === undefined).toBe(failures === failing);
      // What the header says in memory is what lies on the disk.
      const image = join(data, 'image');
      await cp(losing.path, image, { recursive: true });
      expect([failing, await open(image, data, header)]).toEqual([failing, wrapsOf(header)]);
      await OPERATIONS[operation](header, data);
      expect(await open(losing.path, data, header)).toBe(wrapsOf(header));
    }
    expect(failures).toBeGreaterThan(6);
  });
});

describe('after key set', () => {
  beforeEach(expectNoLeakedSlots);

  it('the volume opens without the old key, and does not without the new one', async () => {
    const { data, losing, header } = await scene();
    await OPERATIONS['key set'](header, data);
    expect(await open(losing.path, await without(data, 'old'), header)).toContain(NEW);
    await expect(open(losing.path, await without(data, 'new'), header)).rejects.toMatchObject({
      kind: 'refused',
    });
  });

  it('a copy of the superblock from before is not taken, though the old key would open it', async () => {
    const { data, losing, header } = await scene();
    const old = await readFile(join(losing.path, 'superblock'));
    await OPERATIONS['key set'](header, data);
    const image = join(data, 'image');
    await mkdir(image);
    await cp(losing.path, image, { recursive: true });
    await writeFile(join(image, 'superblock.bak'), old);
    expect(await open(image, data, header)).toContain(NEW);
  });

  it('what lies about as superblock.new is not taken, whatever it is', async () => {
    const { data, losing, header } = await scene();
    const before = wrapsOf(header);
    const image = join(data, 'image');
    await cp(losing.path, image, { recursive: true });
    await OPERATIONS['key set'](header, data);
    await cp(join(losing.path, 'superblock'), join(image, 'superblock.new'));
    expect(await open(image, data, header)).toBe(before);
    await writeFile(join(image, 'superblock.new'), 'anything');
    expect(await open(image, data, header)).toBe(before);
  });
});
