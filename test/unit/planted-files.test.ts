import { execFileSync } from 'node:child_process';
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { VolumeFiles } from '../../src/daemon/volume-files.js';
import { systemRandom } from '../../src/keys/random.js';
import { FsStore } from '../../src/store/fs-store.js';
import { ioError } from '../support/hooked-store.js';
import { expectNoLeakedSlots, temporaryDirectory } from '../support/key-fixtures.js';
import { createVolume, WatchedDirectory } from '../support/watched-volumes.js';

/** What somebody who can write to the disk may put at a path; `outside` is a file of somebody else. */
const PLANTS: Record<string, (path: string, outside: string) => void> = {
  'a link': (path, outside) => symlinkSync(outside, path),
  'a link to nothing': (path) => symlinkSync('/nonexistent/file', path),
  'a link to itself': (path) => symlinkSync(path, path),
  'a pipe': (path) => void execFileSync('mkfifo', [path]),
  'a directory': (path) => {
    mkdirSync(path);
    writeFileSync(join(path, 'in it'), 'x');
  },
  'another name of a file': (path, outside) => linkSync(outside, path),
  'an endless file': (path) => {
    writeFileSync(path, '');
    truncateSync(path, 3 * 2 ** 30);
  },
};
const NAMES = Object.keys(PLANTS);

function plant(what: string, path: string): () => void {
  const outside = join(temporaryDirectory(), 'outside');
  writeFileSync(outside, 'of somebody else');
  rmSync(path, { recursive: true, force: true });
  PLANTS[what](path, outside);
  return () => expect(readFileSync(outside, 'utf8')).toBe('of somebody else');
}

/** A daemon's directory with the volumes `bad` and `good`. */
async function twoVolumes(): Promise<WatchedDirectory> {
  const directory = new WatchedDirectory();
  const watched = await directory.start();
  await createVolume(watched.volumes, 'bad', 'scripted:a');
  await createVolume(watched.volumes, 'good', 'scripted:a');
  await watched.close();
  return directory;
}

describe('what was planted in a directory', () => {
  beforeEach(expectNoLeakedSlots);

  it.each(NAMES)('as reserve-small, %s, makes way for a reserve and is not written to', async (what) => {
    const path = temporaryDirectory();
    const untouched = plant(what, join(path, 'reserve-small'));
    const store = await FsStore.open(path);
    await store.replaceSmall('superblock', Buffer.from('content'));
    expect(lstatSync(join(path, 'reserve-small'))).toMatchObject({ size: 256 * 1024, nlink: 1 });
    const again = plant(what, join(path, 'reserve-small'));
    await store.replaceSmall('superblock.new', Buffer.from('new content'));
    await store.promoteSmall('superblock.new', 'superblock');
    expect(lstatSync(join(path, 'reserve-small')).isFile()).toBe(true);
    expect(await store.readSmall('superblock')).toEqual(Buffer.from('new content'));
    untouched();
    again();
  });

  it.each(NAMES)('as superblock.tmp, %s, does not keep a superblock from being replaced', async (what) => {
    const path = temporaryDirectory();
    const store = await FsStore.open(path);
    const untouched = plant(what, join(path, 'superblock.tmp'));
    await store.replaceSmall('superblock', Buffer.from('content'));
    expect(await store.readSmall('superblock')).toEqual(Buffer.from('content'));
    untouched();
  });

  it.each(NAMES)('as the superblock of a volume half deleted, %s, is removed with it', async (what) => {
    if (what === 'another name of a file') return; // To erase is to overwrite.
    const root = temporaryDirectory();
    mkdirSync(join(root, '.delete-x'));
    const untouched = plant(what, join(root, '.delete-x', 'superblock'));
    const erased = await new VolumeFiles(root, systemRandom).eraseUnfinished();
    expect(erased).toEqual([{ directory: '.delete-x', problem: undefined }]);
    expect(existsSync(join(root, '.delete-x'))).toBe(false);
    untouched();
  });

  const FILES = ['reserve-small', 'superblock', 'superblock.bak', 'superblock.new', 'checkpoint', 'stopped'];
  it.each(FILES)('as %s of one volume does not keep the daemon from serving the others', async (file) => {
    const directory = await twoVolumes();
    for (const what of NAMES) {
      const untouched = plant(what, join(directory.path, 'volumes/bad', file));
      const watched = await directory.start();
      expect(watched.volumes.get('good').state).toBe('serving');
      expect(watched.volumes.find('bad')).toBeDefined();
      await watched.close();
      untouched();
    }
  });

  it('is not counted, nor in the way, where a volume that is not open is shown', async () => {
    const directory = await twoVolumes();
    const bad = join(directory.path, 'volumes/bad');
    const files = new VolumeFiles(join(directory.path, 'volumes'), systemRandom);
    const before = await files.usage('bad');
    plant('a link to nothing', join(bad, 'seg-00000000000000ff'));
    plant('a pipe', join(bad, 'seg-00000000000000fe'));
    plant('a link', join(bad, 'checkpoint'));
    expect(await files.usage('bad')).toEqual({ ...before, mappedBytes: null });
  });

  it('so that one directory can not be put in order is a volume that failed, until it can', async () => {
    const directory = await twoVolumes();
    let broken = true;
    const open = FsStore.open.bind(FsStore);
    vi.spyOn(FsStore, 'open').mockImplementation(async (path, options) => {
      if (broken && path.endsWith('/bad')) throw ioError('open');
      return open(path, options);
    });
    onTestFinished(() => void vi.restoreAllMocks());
    const watched = await directory.start();
    expect(watched.volumes.get('good').state).toBe('serving');
    expect(watched.volumes.get('bad')).toMatchObject({
      state: 'failed',
      reason: expect.stringContaining('EIO'),
    });
    await expect(watched.volumes.start('bad', STARTUP)).rejects.toThrow('EIO');
    broken = false;
    expect((await watched.volumes.start('bad', STARTUP)).state).toBe('serving');
    await watched.close();
  });
});
