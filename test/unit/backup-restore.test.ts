import { readdirSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { Arena } from '../../src/native/arena.js';
import { BackupSubject } from '../support/backup-subject.js';
import { verify } from '../support/backups.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';

const SEED = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);
const check = { signal: new AbortController().signal, onProgress: () => undefined };
const cipher = new CipherPool({ threads: 1 });
afterAll(() => cipher.destroy());

describe.each([
  { suite: 2 as const, name: 'aes-256-gcm' },
  { suite: 1 as const, name: 'aes-256-ctr' },
  { suite: 0 as const, name: 'none' },
])('a full backup, $name', ({ suite }) => {
  it(`restores to the volume as it was, and both go on, seed ${SEED}`, async () => {
    expectNoLeakedSlots();
    const source = await BackupSubject.create(suite, cipher, SEED);
    await source.change(150);
    await source.volume.compact();
    await source.change(50);
    const then = source.versions.slice();
    const { slots } = await source.backUp('full');
    await source.change(100);
    expect(await verify(source, source.directory('full'))).toEqual({ slots, problems: [] });
    expect(readdirSync(source.directory('full'))).not.toContain('incomplete');

    const { path, lost, blocks } = await source.restore('full', 'w');
    expect(lost).toEqual([]);
    let copy = await source.restored(path, then);
    expect(blocks).toBe(copy.mapped);
    await copy.expectContent();
    expect(await copy.volume.verify(check)).toEqual({ checkedBlocks: blocks, lost: [], problems: [] });

    await copy.change(80);
    await source.change(80);
    await copy.volume.compact();
    await copy.expectContent();
    await source.expectContent();
    const { versions } = copy;
    await copy.stop();
    copy = await source.restored(path, versions);
    await copy.expectContent();
    await copy.stop();
    await source.stop();
  });
});

describe('a chain of a full backup and incremental ones', () => {
  it.each([2, 1] as const)(
    `holds what changed, whatever was moved or rewritten, suite %d, seed ${SEED}`,
    async (suite) => {
      expectNoLeakedSlots();
      const source = await BackupSubject.create(suite, cipher, SEED + suite);
      await source.change(150);
      await source.volume.createSnapshot('early');
      await source.change(40);
      const states = [source.versions.slice()];
      await source.backUp('b0');
      const increment = async (changes: () => Promise<ReadonlySet<number>>): Promise<void> => {
        const n = states.length;
        const touched = await changes();
        const { slots } = await source.backUp(`b${n}`, { base: source.directory(`b${n - 1}`) });
        expect(slots).toBeLessThanOrEqual(touched.size);
        states.push(source.versions.slice());
      };
      await increment(() => source.change(20));
      await increment(async () => {
        const touched = await source.change(5, 200);
        await source.volume.deleteSnapshot('early');
        await source.volume.compact();
        return touched;
      });
      await increment(async () => {
        const touched = await source.change(10, 300);
        await source.rotate(true);
        return touched;
      });
      // In a head segment, and overwritten by the time of the next backup: a rollback brings the slot back.
      await source.write(350, 24);
      await source.volume.createSnapshot('late');
      const late = source.versions.slice();
      await increment(async () => {
        await source.volume.trim(0, 100 * 4096);
        source.versions.fill(0, 0, 100);
        await source.write(300, 24);
        await source.write(350, 24);
        await source.volume.compact();
        return new Set(Array.from({ length: 74 }, (_, i) => 300 + i));
      });
      const before = source.versions.slice();
      await source.volume.rollBack('late', 10_000);
      await source.reopen();
      source.versions = late;
      await source.expectContent();
      await increment(async () => {
        const touched = new Set(await source.change(6, 400));
        for (let lba = 0; lba < before.length; lba++) if (before[lba] !== late[lba]) touched.add(lba);
        return touched;
      });

      for (const [n, versions] of states.entries()) {
        const path = source.directory(`b${n}`);
        expect((await verify(source, path)).problems).toEqual([]);
        const restored = await source.restore(`b${n}`, `w${n}`);
        const copy = await source.restored(restored.path, versions);
        await copy.expectContent();
        await copy.stop();
      }
      await source.stop();
    },
  );
});

describe('a backup of a volume that is written to meanwhile', () => {
  it(`is the snapshot of the same instant, block for block, seed ${SEED}`, async () => {
    expectNoLeakedSlots();
    const source = await BackupSubject.create(2, cipher, SEED + 7);
    await source.change(150);
    let writing = true;
    const writer = (async () => {
      let writes = 0;
      for (; writing; writes++) {
        await source.change(1);
        if (writes % 10 === 0) await source.volume.flush();
        await new Promise((resolve) => setImmediate(resolve));
      }
      return writes;
    })();
    await new Promise((resolve) => setTimeout(resolve, 20));
    const snapshot = source.volume.createSnapshot('s');
    const backup = source.backUp('b0');
    const [, manifest] = await Promise.all([snapshot, backup]);
    const pin = await source.volume.pin('s');
    expect(manifest.sequence).toBe(pin.sequence);
    await pin.release();
    writing = false;
    expect(await writer).toBeGreaterThan(20);

    const { path } = await source.restore('b0', 'w');
    const copy = await source.restored(path, source.versions.slice());
    const device = source.volume.snapshots.device('s')!;
    const detach = device.attach(() => undefined);
    const [one, other] = [new Arena(1 << 20), new Arena(1 << 20)];
    let differing = 0;
    for (let at = 0; at < manifest.sizeBytes; at += one.sizeBytes) {
      await device.read(one, 0, at, one.sizeBytes);
      await copy.volume.read(other, 0, at, other.sizeBytes);
      expect(Buffer.compare(one.bytes, other.bytes), `offset ${at}`).toBe(0);
      await source.volume.read(other, 0, at, other.sizeBytes);
      differing += Buffer.compare(one.bytes, other.bytes) === 0 ? 0 : 1;
    }
    expect(differing).toBeGreaterThan(0);
    detach();
    for (const arena of [one, other]) arena.free();
    await copy.stop();
    await source.stop();
  });
});

describe('a volume that is being converted from none', () => {
  it('is restored as one that goes on with it, and is no base for what is encrypted', async () => {
    expectNoLeakedSlots();
    const source = await BackupSubject.create(0, cipher, SEED + 9);
    await source.change(40);
    await source.backUp('plain');
    await source.beginEncryption();
    await source.change(10);
    const then = source.versions.slice();
    const incremental = { base: source.directory('plain') };
    await expect(source.backUp('b1', incremental)).rejects.toMatchObject({ code: 'CONFLICT' });
    expect(readdirSync(source.directory('b1'))).toEqual([]);
    const { deks, plain } = await source.backUp('b0');
    expect([deks.map(({ id }) => id), plain]).toEqual([[1], true]);
    expect((await verify(source, source.directory('b0'))).problems).toEqual([]);

    const copy = await source.restored((await source.restore('b0', 'w')).path, then);
    await copy.expectContent();
    const { superblock } = copy.sealed.header;
    expect(superblock).toMatchObject({ plain: true, rewriting: true, activeDek: 2 });
    await copy.rewrite();
    expect(copy.sealed.header.superblock).toMatchObject({ plain: false, rewriting: false, origins: [] });
    await copy.expectContent();
    await source.rewrite();
    await source.expectContent();
    await copy.stop();
    await source.stop();
  });
});
