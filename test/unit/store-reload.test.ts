import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { FsStore } from '../../src/store/fs-store.js';

const TMPFS_MAGIC = 0x01021994;
const BYTES = 1024 * 1024;

let path: string;

beforeEach(async () => {
  path = await mkdtemp(join(tmpdir(), 'sealbd-test-'));
});

afterEach(() => rm(path, { recursive: true, force: true }));

it('a reloaded file is out of the page cache, and has all that was written', async (context) => {
  if ((await statfs(path)).type === TMPFS_MAGIC)
    context.skip('the temporary directory has no medium but the page cache');
  const store = await FsStore.open(path);
  const file = await store.create('file', BYTES);
  try {
    const bytes = new Uint8Array(BYTES).fill(7);
    await file.write(bytes, 0);
    const cached = (): number =>
      Number(
        execFileSync('fincore', ['--bytes', '--noheadings', '--output', 'RES', join(path, 'file')], {
          encoding: 'utf8',
        }),
      );
    expect(cached()).toBe(BYTES);
    await file.reload();
    expect(cached()).toBe(0);
    const read = new Uint8Array(BYTES);
    expect(await file.read(read, 0)).toBe(BYTES);
    expect(read).toEqual(bytes);
  } finally {
    await file.close();
  }
});
