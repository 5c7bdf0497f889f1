import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { FsStore } from '../../src/store/fs-store.js';

describe('the replacement of small files', () => {
  let path: string;
  beforeEach(() => {
    path = mkdtempSync(join(tmpdir(), 'sealbd-small-'));
  });
  afterEach(() => rmSync(path, { recursive: true, force: true }));

  const put = (name: string, text: string): void => writeFileSync(join(path, name), text);
  const get = (name: string): string => readFileSync(join(path, name), 'utf8');

  it('that a crash ended when the old file had become the reserve is finished at the next opening', async () => {
    put('checkpoint.tmp', 'new');
    put('checkpoint.bak', 'old');
    put('reserve-small', 'old');
    await FsStore.open(path);
    expect(get('checkpoint')).toBe('new');
    expect(get('checkpoint.bak')).toBe('old');
  });

  it('that a crash ended when the old file had made way for the one that was proven is finished too', async () => {
    put('superblock.new', 'new');
    put('superblock.bak', 'old');
    put('reserve-small', 'old');
    await FsStore.open(path);
    expect(get('superblock')).toBe('new');
    expect(get('superblock.bak')).toBe('old');
  });

  it('by a file that waited leaves that one in its place, and the reserve as it was', async () => {
    const store = await FsStore.open(path);
    await store.replaceSmall('superblock', Buffer.from('old'));
    await store.replaceSmall('superblock.new', Buffer.from('new'));
    await store.promoteSmall('superblock.new', 'superblock');
    expect((await store.list()).sort()).toEqual(['reserve-small', 'superblock']);
    expect(get('superblock')).toBe('new');
    await store.replaceSmall('superblock.new', Buffer.from('other'));
    await store.discardSmall('superblock.new');
    await store.discardSmall('superblock.new');
    expect((await store.list()).sort()).toEqual(['reserve-small', 'superblock']);
    expect(readFileSync(join(path, 'reserve-small')).every((byte) => byte === 0)).toBe(true);
  });

  it('that a crash ended while its file was written leaves the old file alone', async () => {
    put('checkpoint.tmp', 'n');
    put('checkpoint', 'old');
    put('reserve-small', '');
    await FsStore.open(path);
    expect(get('checkpoint')).toBe('old');
  });

  it('leaves nothing of an old superblock in the reserve after an opening', async () => {
    put('superblock', 'new');
    put('reserve-small', 'the wrapped key of before');
    await FsStore.open(path);
    expect(readFileSync(join(path, 'reserve-small')).every((byte) => byte === 0)).toBe(true);
    expect(get('superblock')).toBe('new');
  });

  it('brings the reserve back to its size where there is room', async () => {
    const store = await FsStore.open(path);
    put('reserve-small', 'short');
    await store.replaceSmall('superblock', Buffer.from('content'));
    expect(statSync(join(path, 'reserve-small')).size).toBe(256 * 1024);
    expect(get('superblock')).toBe('content');
  });

  it('takes its turns in one directory, whichever store asks', async () => {
    const [one, other] = [await FsStore.open(path), await FsStore.open(path)];
    const all = Array.from({ length: 20 }, (_, i) =>
      (i % 2 === 0 ? one : other).replaceSmall('x', Buffer.from(`${i}`)),
    );
    await Promise.all(all);
    expect(get('x')).toBe('19');
  });

  it('that are pipes, directories or endless are refused at once, by name', async () => {
    const store = await FsStore.open(path);
    execFileSync('mkfifo', [join(path, 'superblock')]);
    await expect(store.readSmall('superblock')).rejects.toThrow('superblock is not a regular file');
    await expect(store.open('superblock', 'read')).rejects.toThrow('superblock is not a regular file');
    mkdirSync(join(path, 'checkpoint'));
    await expect(store.readSmall('checkpoint')).rejects.toThrow('checkpoint is not a regular file');
    put('superblock.bak', '');
    truncateSync(join(path, 'superblock.bak'), 3 * 2 ** 30);
    await expect(store.readSmall('superblock.bak')).rejects.toThrow('superblock.bak has 3221225472 bytes');
  });
});
