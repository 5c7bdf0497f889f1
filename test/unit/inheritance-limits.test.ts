/** What a restored or cloned volume could not hold is refused before: by `backup create`, `snapshot clone` and `key rotate`. */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  DEKS_PER_VOLUME_MAX,
  KMS_CIPHERTEXT_BYTES_MAX,
  ORIGINS_PER_VOLUME_MAX,
  SUPERBLOCK_BYTES_MAX,
} from '../../src/base/limits.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import type { DekRecord } from '../../src/keys/dek-record.js';
import { RESTORE_LIMITS, whyNotInherited } from '../../src/keys/inheritance.js';
import { descend, type Origin } from '../../src/keys/origins.js';
import { whyNoRoom } from '../../src/keys/rotation-room.js';
import {
  decodeSuperblock,
  encodeSuperblock,
  type Superblock,
  superblockBytes,
} from '../../src/keys/superblock.js';
import { addon, SUITE_GCM } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import { ended } from '../support/backed-up.js';
import { expectNoLeakedSlots, temporaryDirectory } from '../support/key-fixtures.js';
import { BLOCK, patternBlock } from '../support/volume-harness.js';
import { createVolume, type Watched, WatchedDirectory } from '../support/watched-volumes.js';

const uuid = new Uint8Array(16).fill(7);
const CONFLICT = { code: 'CONFLICT' };

function dek(id: number, fields: Partial<DekRecord> = {}): DekRecord {
  return {
    ...{ id, state: 'retired', exposed: false, createdAt: 0, checkValue: new Uint8Array(16) },
    ...{ keyUri: 'awskms:///alias/a', resolvedKeyId: 'arn:a', keyVersion: '', wrapped: new Uint8Array(184) },
    ...fields,
  };
}

const deks = (count: number, fields?: Partial<DekRecord>) =>
  Array.from({ length: count }, (_, i) => dek(i + 1, fields));

/** The superblock that would come of it, where each wrap is longer by `growth`. */
function superblockOf(
  taken: readonly DekRecord[],
  origins: readonly Origin[],
  growth: number,
  isReencrypted = false,
): Buffer {
  const grown = taken.map((one) => ({
    ...one,
    keyUri: one.resolvedKeyId.length > one.keyUri.length ? `awskms:///${one.resolvedKeyId}` : one.keyUri,
    wrapped: new Uint8Array(one.wrapped.length + growth),
  }));
  const newest = grown.at(-1)!;
  const key = addon.keyImport(new Uint8Array(32));
  try {
    const own: DekRecord = { ...newest, id: newest.id + 1, state: 'active' };
    const next: DekRecord = { ...newest, id: newest.id + 2, state: 'pending' };
    return encodeSuperblock(
      {
        ...{ suite: SUITE_GCM, activeDek: own.id, rewriting: false, plain: false, sizeInRoot: false },
        ...{ uuid: new Uint8Array(16), generation: 1, sizeBytes: 2 ** 20, createdAt: 0 },
        ...{
          deks: [...grown, own, ...(isReencrypted ? [next] : [])],
          origins: descend({ uuid, origins }, newest.id),
        },
      },
      () => key,
    );
  } finally {
    addon.keyRelease(key);
  }
}

describe('what a superblock can take over', () => {
  const nobody = { uuid, origins: [] };
  const long = { wrapped: new Uint8Array(KMS_CIPHERTEXT_BYTES_MAX) };

  it.each([
    ['the longest wraps of AWS KMS', long, 64],
    ['the longest of all', { keyUri: `awskms:///${'k'.repeat(8000)}`, wrapped: new Uint8Array(8000) }, 64],
    ['an alias that gives way to a long key id', { resolvedKeyId: 'k'.repeat(8000) }, 64],
    ['such as AWS KMS gives', {}, 64],
  ])('with %s: all that is said to fit does', (_, fields, growth) => {
    const fits = (n: number) => whyNotInherited(nobody, deks(n, fields)) === undefined;
    let [count, tooMany] = [1, DEKS_PER_VOLUME_MAX];
    while (tooMany - count > 1) {
      const middle = (count + tooMany) >> 1;
      if (fits(middle)) count = middle;
      else tooMany = middle;
    }
    const bytes = superblockOf(deks(count, fields), [], growth, true);
    expect(bytes.length).toBeLessThanOrEqual(SUPERBLOCK_BYTES_MAX);
    expect(decodeSuperblock(bytes).superblock.deks).toHaveLength(count + 2);
    if (count + 2 === DEKS_PER_VOLUME_MAX) return;
    // And not much less than what would.
    expect(whyNotInherited(nobody, deks(count + 1, fields))).toMatch(/bytes of its superblock/);
    expect(bytes.length).toBeGreaterThan(SUPERBLOCK_BYTES_MAX * 0.9);
  });

  it('is as many DEKs as it has place for beside its own, and that of a re-encryption', () => {
    expect(whyNotInherited(nobody, deks(DEKS_PER_VOLUME_MAX - 2))).toBeUndefined();
    expect(whyNotInherited(nobody, deks(DEKS_PER_VOLUME_MAX - 1))).toMatch(/1023 at most/);
    // A backup that is there is restored all the same.
    expect(whyNotInherited(nobody, deks(DEKS_PER_VOLUME_MAX - 1), RESTORE_LIMITS)).toBeUndefined();
    expect(whyNotInherited(nobody, deks(DEKS_PER_VOLUME_MAX), RESTORE_LIMITS)).toMatch(/1024 at most/);
  });

  it('is as long a line of volumes as it can name', () => {
    const line = (length: number): Origin[] =>
      Array.from({ length }, (_, i) => ({ uuid: new Uint8Array(16).fill(i), lastDek: i + 1 }));
    // The one that is taken over from becomes an origin itself, where it has a DEK of its own.
    const own = [dek(ORIGINS_PER_VOLUME_MAX), dek(ORIGINS_PER_VOLUME_MAX + 1)];
    const origins = line(ORIGINS_PER_VOLUME_MAX);
    expect(whyNotInherited({ uuid, origins: origins.slice(1) }, own)).toBeUndefined();
    expect(superblockOf(own, origins.slice(1), 0).length).toBeGreaterThan(0);
    expect(whyNotInherited({ uuid, origins }, own)).toMatch(/descend from 1025 volumes/);
    expect(whyNotInherited({ uuid, origins }, own.slice(0, 1))).toBeUndefined();
  });

  it('is never written longer than it can be read', () => {
    expect(() => superblockOf(deks(200, long), [], 0)).toThrow(expect.objectContaining(CONFLICT));
  });
});

describe('a rotation', () => {
  /** After it: `count` DEKs, the new one last. */
  const after = (count: number, fields?: Partial<DekRecord>): Superblock => ({
    ...{ suite: SUITE_GCM, activeDek: count - 1, rewriting: false, plain: false, sizeInRoot: false },
    ...{ uuid, generation: 1, sizeBytes: 2 ** 20, createdAt: 0, origins: [] },
    deks: [...deks(count - 2, fields), dek(count - 1, { ...fields, state: 'active' })].concat(
      dek(count, { ...fields, state: 'pending' }),
    ),
  });

  it('leaves the last DEK to one that rewrites', () => {
    expect(whyNoRoom(after(DEKS_PER_VOLUME_MAX - 1), false)).toBeUndefined();
    expect(whyNoRoom(after(DEKS_PER_VOLUME_MAX), false)).toMatch(/has 1023 DEKs.*re-encryption/);
    expect(whyNoRoom(after(DEKS_PER_VOLUME_MAX), true)).toBeUndefined();
    expect(whyNoRoom(after(DEKS_PER_VOLUME_MAX + 1), true)).toMatch(/has 1024 DEKs/);
  });

  it('leaves the last bytes of the superblock to one that rewrites', () => {
    const long = { wrapped: new Uint8Array(8000) };
    const plainOnes = Array.from({ length: 200 }, (_, i) => i + 3).filter(
      (n) => !whyNoRoom(after(n, long), false),
    );
    const most = plainOnes.at(-1)!;
    expect(whyNoRoom(after(most + 1, long), false)).toMatch(/re-encryption/);
    expect(whyNoRoom(after(most + 1, long), true)).toBeUndefined();
    expect(superblockBytes(after(most + 1, long))).toBeLessThanOrEqual(SUPERBLOCK_BYTES_MAX);
    expect(superblockBytes(after(most + 3, long))).toBeGreaterThan(SUPERBLOCK_BYTES_MAX);
    expect(whyNoRoom(after(most + 3, long), true)).toBeDefined();
  });
});

describe('a volume with as many long wraps as can be taken over', () => {
  beforeEach(expectNoLeakedSlots);

  it('is backed up, restored and cloned; with one more none of that is begun', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    const volume = await createVolume(watched.volumes, 'v', `scripted:${'k'.repeat(8000)}`);
    // Each DEK keeps a block that nothing else is written to.
    let blocks = 0;
    const write = async (): Promise<void> => {
      const io = new Arena(BLOCK);
      io.bytes.set(patternBlock(blocks, 1));
      await volume.device!.write(io, 0, blocks * BLOCK, BLOCK);
      await volume.device!.flush();
      io.free();
      blocks += 1;
    };
    const rotate = async (): Promise<void> => {
      await watched.rotations.rotate(watched.volumes, 'v', false, STARTUP);
      await write();
    };
    await write();
    const hasRoom = (): boolean => {
      const { deks: held, ...lineage } = volume.superblock!;
      return whyNotInherited(lineage, [...held, { ...held.at(-1)!, id: held.length + 1 }]) === undefined;
    };
    while (hasRoom()) await rotate();
    await watched.snapshots.create('v', 's', STARTUP);
    const above = temporaryDirectory();
    const backUp = (to: string, base?: string) => {
      const at = base === undefined ? {} : { base: join(above, base) };
      return watched.backups.create('v', { path: join(above, to), ...at, salvage: false }, STARTUP);
    };
    expect(await ended(watched, await backUp('b'))).toMatchObject({ state: 'done', error: null });
    const made = await watched.restores.restore('w', { path: join(above, 'b'), salvage: false }, STARTUP);
    expect(await ended(watched, made)).toMatchObject({ state: 'done', error: null });
    await expectReopens(watched, 'w');
    expect(await ended(watched, await watched.restores.clone('v', 's', 'c', STARTUP))).toMatchObject({
      state: 'done',
      error: null,
    });
    await expectReopens(watched, 'c');

    await rotate();
    await watched.snapshots.create('v', 't', STARTUP);
    for (const base of [undefined, 'b']) {
      expect(await ended(watched, await backUp('no', base))).toMatchObject({
        state: 'failed',
        error: { code: 'CONFLICT', message: expect.stringMatching(/bytes of its superblock.*re-encrypt/) },
      });
    }
    expect(readdirSync(join(above, 'no'))).toEqual([]);
    const jobs = watched.jobs.list().length;
    await expect(watched.restores.clone('v', 't', 'x', STARTUP)).rejects.toMatchObject(CONFLICT);
    expect(watched.jobs.list()).toHaveLength(jobs);
    expect(existsSync(join(directory.path, 'volumes', 'x'))).toBe(false);

    // What the errors advise can be done, however many rotations came before.
    let refused: unknown;
    for (let i = 0; i < 4 && refused === undefined; i++) await rotate().catch((error) => (refused = error));
    expect(refused).toMatchObject({ ...CONFLICT, message: expect.stringMatching(/re-encryption/) });
    const { job } = await watched.rotations.rotate(watched.volumes, 'v', true, STARTUP);
    expect(await ended(watched, job!)).toMatchObject({ state: 'done', error: null });
    expect(volume.superblock!.deks).toHaveLength(1);
    expect(await ended(watched, await backUp('again'))).toMatchObject({ state: 'done', error: null });
    await watched.close();
  });
});

async function expectReopens({ volumes }: Watched, name: string): Promise<void> {
  expect(volumes.get(name).state).toBe('serving');
  await volumes.stop(name, STARTUP);
  expect((await volumes.start(name, STARTUP)).state).toBe('serving');
}
