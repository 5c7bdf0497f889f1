/** A change of keys on a disk whose every free byte somebody else takes at once. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { nullLogger } from '../../src/base/log.js';
import { systemRandom } from '../../src/keys/random.js';
import { moveToKey, rewrapUnderSameKey } from '../../src/keys/rewrap.js';
import { VolumeHeader } from '../../src/keys/volume-header.js';
import { addon } from '../../src/native/addon.js';
import { FsStore } from '../../src/store/fs-store.js';
import { expectNoLeakedSlots, keyProviders, temporaryDirectory } from '../support/key-fixtures.js';
import { loopFilesystem, takeSpace, whyNoMounts } from '../support/loop-filesystem.js';

const skipped = whyNoMounts('mkfs.ext4');

describe.skipIf(skipped !== undefined)(
  `on a full disk${skipped === undefined ? '' : ` (${skipped})`}`,
  () => {
    beforeEach(expectNoLeakedSlots);

    it('key set and key rewrap work again and again, and one that fails gives the reserve back', async () => {
      const disk = await loopFilesystem('ext4', 16 * 2 ** 20);
      const providers = keyProviders(temporaryDirectory());
      const services = { providers, clock: systemClock };
      for (const uri of ['local:a', 'local:b']) await providers.open(uri).ensure();
      const store = await FsStore.open(join(disk, 'v'), { create: true });
      const identity = { sizeBytes: 2 ** 30, suite: 2, keyUri: 'local:a' } as const;
      const header = await VolumeHeader.create({ ...services, ...identity, store, random: systemRandom });
      onTestFinished(() => header.revoke());
      const fill = (): void => takeSpace(join(disk, 'filler'));
      fill();
      // Whatever a step sets free is gone before the next one.
      for (const name of ['rename', 'remove', 'syncDirectory'] as const) {
        const step = store[name].bind(store) as (...args: string[]) => Promise<void>;
        store[name] = async (...args: string[]) => {
          await step(...args);
          fill();
        };
      }
      // What could not be relied on is given up; the space that it took is there for the next.
      const failing = header.update({}, () => Promise.reject(new Error('not proven')));
      await expect(failing).rejects.toThrow('not proven');
      expect(await store.list()).not.toContain('superblock.new');
      for (const uri of ['local:b', 'local:a', 'local:b']) {
        await moveToKey(header, uri, services);
        await rewrapUnderSameKey(header, services);
        await expect(moveToKey(header, 'local:missing', services)).rejects.toMatchObject({ kind: 'refused' });
      }
      expect(header.superblock).toMatchObject({ generation: 7, deks: [{ keyUri: 'local:b' }] });
      // The volume opens from that disk, and the reserve keeps no wrapped key.
      const again = await VolumeHeader.open({
        ...{ store: await FsStore.open(join(disk, 'v')), providers, pins: {}, log: nullLogger },
      });
      try {
        expect(again.superblock.generation).toBe(7);
        expect(addon.keyEquals(again.deks.get(1)!, header.deks.get(1)!)).toBe(true);
        const reserve = readFileSync(join(disk, 'v', 'reserve-small'));
        expect([reserve.length > 0, reserve.every((byte) => byte === 0)]).toEqual([true, true]);
      } finally {
        again.revoke();
      }
    });
  },
);
