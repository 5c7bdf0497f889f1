/** Whatever is changed in a backup is found by `verify`, without a key where accidents go, and refused by `restore`. */
import { cpSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openChain } from '../../src/backup/backup-directory.js';
import { encodeIndex } from '../../src/backup/index-codec.js';
import { messageOf } from '../../src/base/errors.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { addon } from '../../src/native/addon.js';
import { BackupSubject } from '../support/backup-subject.js';
import { makeBackup, storeAt, verify } from '../support/backups.js';
import { HookedStore } from '../support/hooked-store.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';

const SEED = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);
const FLIPS_PER_FILE = Number(process.env.SEALBD_FLIPS ?? 5);
const HEADER = 4096;
const SLOT = 4128;
const cipher = new CipherPool({ threads: 1 });
afterAll(() => cipher.destroy());

async function chainOfTwo(suite: 0 | 1 | 2): Promise<BackupSubject> {
  const source = await BackupSubject.create(suite, cipher, SEED);
  await source.change(60);
  await source.backUp('b0');
  await source.change(10);
  await source.backUp('b1', { base: source.directory('b0') });
  return source;
}

async function problemsOf(source: BackupSubject, withKeys: boolean): Promise<string[]> {
  try {
    return (await verify(source, source.directory('b1'), withKeys)).problems;
  } catch (error) {
    expect(error).toMatchObject({ code: 'INTEGRITY' });
    return [messageOf(error)];
  }
}

async function expectRefused(source: BackupSubject, what: string): Promise<void> {
  await expect(source.restore('b1', 'x'), what).rejects.toMatchObject({ code: 'INTEGRITY' });
  rmSync(join(source.dataDirectory, 'volumes', 'x'), { recursive: true, force: true });
}

function flip(path: string, at: number): () => void {
  const bytes = readFileSync(path);
  const before = Buffer.from(bytes);
  bytes[at] ^= 1 << (at % 8);
  writeFileSync(path, bytes);
  return () => writeFileSync(path, before);
}

/** Each kind of byte: of a header; block, sequence, lba, kind, lag and tag of a slot; and any others. */
function placesIn(name: string, length: number, random: () => number): number[] {
  const any = Array.from({ length: FLIPS_PER_FILE }, () => Math.floor(random() * length));
  if (!name.startsWith('data-')) return [0, 8, 20, length - 1, ...any];
  const slot = HEADER + SLOT * Math.floor(random() * ((length - HEADER) / SLOT));
  return [
    0,
    30,
    60,
    HEADER - 1,
    slot,
    slot + 4096,
    slot + 4103,
    slot + 4108,
    slot + 4109,
    slot + 4112,
    slot + 4127,
    any[0],
  ];
}

describe.each([2, 1, 0] as const)('a chain of suite %d', (suite) => {
  it(`is refused with any byte flipped, seed ${SEED}`, async () => {
    expectNoLeakedSlots();
    const source = await chainOfTwo(suite);
    expect(await problemsOf(source, true)).toEqual([]);
    for (const backup of suite === 2 ? ['b0', 'b1'] : ['b1']) {
      const files = readdirSync(source.directory(backup));
      const data = files.filter((name) => name.startsWith('data-'));
      for (const name of ['manifest', 'index', 'map', data[Math.floor(source.random() * data.length)]]) {
        const path = join(source.directory(backup), name);
        const places = placesIn(name, readFileSync(path).length, source.random);
        for (const [i, at] of places.entries()) {
          const what = `${backup}/${name}, byte ${at}`;
          const undo = flip(path, at);
          expect(await problemsOf(source, false), what).not.toEqual([]);
          if (i % 4 === 0) {
            expect(await problemsOf(source, true), what).not.toEqual([]);
            await expectRefused(source, what);
          }
          undo();
        }
      }
    }
    expect(await problemsOf(source, true)).toEqual([]);
    await source.stop();
  });

  it('is refused with a file missing, cut, longer, or that of another backup', async () => {
    const source = await chainOfTwo(suite);
    await source.change(5);
    await source.backUp('other', { base: source.directory('b0') });
    const [whole] = readdirSync(source.directory('b1')).filter((name) => name.startsWith('data-'));
    const changes: [string, (path: string) => void][] = [
      ['missing', (path) => rmSync(path)],
      ['cut', (path) => truncateSync(path, readFileSync(path).length - 1)],
      ['longer', (path) => writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.alloc(1)]))],
    ];
    for (const name of ['index', 'map', whole]) {
      const path = join(source.directory('b1'), name);
      const before = readFileSync(path);
      for (const [what, change] of changes) {
        change(path);
        expect(await problemsOf(source, false), `${name} ${what}`).not.toEqual([]);
        await expectRefused(source, `${name} ${what}`);
        writeFileSync(path, before);
      }
    }
    for (const name of ['manifest', 'index', 'map']) {
      const path = join(source.directory('b0'), name);
      const before = readFileSync(path);
      cpSync(join(source.directory('other'), name), path);
      await expectRefused(source, `${name} of another backup`);
      writeFileSync(path, before);
    }
    rmSync(join(source.directory('b0'), 'manifest'));
    await expectRefused(source, 'a base without a manifest');
    await source.stop();
  });
});

describe('what newer backups of a chain supersede', () => {
  it('is refused with a byte flipped all the same, though a salvage needs nothing of it', async () => {
    expectNoLeakedSlots();
    const source = await BackupSubject.create(2, cipher, SEED);
    await source.write(0, 64);
    await source.backUp('b0');
    await source.write(0, 64);
    await source.backUp('b1', { base: source.directory('b0') });
    const [data] = readdirSync(source.directory('b0')).filter((name) => name.startsWith('data-'));
    for (const at of [60, HEADER + 9 * SLOT + 77]) {
      const undo = flip(join(source.directory('b0'), data), at);
      expect(await problemsOf(source, true)).not.toEqual([]);
      await expectRefused(source, `byte ${at} of ${data}`);
      const { path, lost } = await source.restore('b1', 'x', true);
      expect(lost).toEqual([]);
      const copy = await source.restored(path, source.versions.slice());
      await copy.expectContent();
      await copy.stop();
      rmSync(path, { recursive: true });
      undo();
    }
    // A map whose MACs hold, and whose checksum does not, is not the one that was backed up either.
    const map = join(source.directory('b0'), 'map');
    const whole = readFileSync(map);
    writeFileSync(map, Buffer.concat([whole, Buffer.alloc(1)]));
    await expectRefused(source, 'a longer map');
    writeFileSync(map, whole);
    await source.restore('b1', 'x');
    await source.stop();
  });
});

describe('a volume whose medium can not be read in places', () => {
  it.each(['EIO', 'EBADMSG', 'EUCLEAN', 'ENODATA'])('is salvaged where that is %s', async (code) => {
    const source = await BackupSubject.create(2, cipher, SEED);
    await source.write(0, 128);
    const [first, second] = readdirSync(source.store.path)
      .filter((name) => name.startsWith('seg-'))
      .sort();
    const from = new HookedStore(source.store);
    from.onRead = async (name, position) => {
      if ((name === first && position === 0) || (name === second && position > 0))
        throw Object.assign(new Error(`${code}: injected`), { code });
    };
    const backUp = (salvage: boolean) =>
      makeBackup(source, source.sealed, from, source.directory('b0'), { salvage });
    await expect(backUp(false)).rejects.toMatchObject({ code: 'INTEGRITY' });
    await backUp(true);
    // The header is made anew; the slots are lost.
    const { lost } = await source.restore('b0', 'x', true);
    expect(lost).toEqual([{ offset: 64 * 4096, length: 64 * 4096 }]);
    await source.stop();
  });
});

describe('somebody who mends the checksums', () => {
  it('is told from the volume by MAC and tags', async () => {
    const source = await chainOfTwo(2);
    const path = source.directory('b1');
    const [name] = readdirSync(path).filter((each) => each.startsWith('data-'));
    const bytes = readFileSync(join(path, name));
    bytes[HEADER + 5] ^= 1;
    writeFileSync(join(path, name), bytes);
    // The index says the right checksum of it then, but the manifest has another index.
    const [, { manifest }] = await openChain(path, storeAt);
    const [, backup] = await openChain(path, storeAt);
    const entries = [...(await backup.index())];
    const at = entries.findIndex((entry) => name.endsWith(entry.id.toString(16)));
    entries[at] = { ...entries[at], crc: addon.crc32c(bytes, 0) };
    writeFileSync(join(path, 'index'), encodeIndex(entries));
    expect(manifest.index.bytes).toBe(encodeIndex(entries).length);
    expect(await problemsOf(source, false)).toEqual([expect.stringContaining('index: wrong checksum')]);
    await expectRefused(source, 'an index with another checksum');
    await source.stop();
  });
});

describe('a damaged backup that is salvaged', () => {
  it('gives everything that authenticates, and errors for what is lost', async () => {
    const source = await BackupSubject.create(2, cipher, SEED);
    await source.write(0, 200);
    await source.write(300, 100);
    await source.backUp('b0');
    const path = source.directory('b0');
    const names = readdirSync(path).filter((name) => name.startsWith('data-'));
    // 64 slots a segment: a slot of the first one, and all of the second.
    flip(join(path, names[0]), HEADER + 3 * SLOT + 7);
    rmSync(join(path, names[1]));
    await expect(source.restore('b0', 'x')).rejects.toMatchObject({ code: 'INTEGRITY' });
    rmSync(join(source.dataDirectory, 'volumes', 'x'), { recursive: true });
    const { path: restored, lost } = await source.restore('b0', 'x', true);
    expect(lost).toEqual([
      { offset: 3 * 4096, length: 4096 },
      { offset: 64 * 4096, length: 64 * 4096 },
    ]);
    const copy = await source.restored(restored, source.versions.slice());
    const check = { signal: new AbortController().signal, onProgress: () => undefined };
    expect((await copy.volume.verify(check)).lost).toEqual(lost);
    const isLost = (lba: number) =>
      lost.some(({ offset, length }) => lba * 4096 >= offset && lba * 4096 < offset + length);
    await copy.expectContent(copy.versions, isLost);
    await copy.volume.compact();
    expect((await copy.volume.verify(check)).lost).toEqual(lost);
    // It goes on: what is overwritten is there again.
    await copy.write(3, 1);
    await copy.expectContent(copy.versions, (lba) => lba !== 3 && isLost(lba));
    await copy.stop();
    await source.stop();
  });
});

describe('a volume that has lost a segment', () => {
  it('is backed up where that is asked for, and what is lost stays an error', async () => {
    const source = await BackupSubject.create(2, cipher, SEED);
    await source.write(0, 100);
    await source.write(100, 100);
    await source.sealed.stop();
    const [, second] = readdirSync(source.store.path).filter((name) => name.startsWith('seg-'));
    rmSync(join(source.store.path, second));
    await source.reopen();
    await expect(source.backUp('b0')).rejects.toMatchObject({
      code: 'INTEGRITY',
      message: expect.stringContaining(second),
    });
    expect(readdirSync(source.directory('b0'))).toEqual([]);
    await source.backUp('b0', { salvage: true });
    expect((await verify(source, source.directory('b0'), false)).problems).toEqual([]);
    expect((await verify(source, source.directory('b0'))).problems).toEqual([
      expect.stringContaining('data-'),
    ]);
    await expect(source.restore('b0', 'x')).rejects.toMatchObject({ code: 'INTEGRITY' });
    rmSync(join(source.dataDirectory, 'volumes', 'x'), { recursive: true });
    const { path, lost } = await source.restore('b0', 'x', true);
    expect(lost).toEqual([{ offset: 64 * 4096, length: 64 * 4096 }]);
    const copy = await source.restored(path, source.versions.slice());
    const isLost = (lba: number) => lba >= 64 && lba < 128;
    await copy.expectContent(copy.versions, isLost);
    await source.expectContent(source.versions, isLost);
    await copy.stop();
    await source.stop();
  });
});
