import { mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DataDirectory } from '../../src/daemon/data-directory.js';

describe('the data directory', () => {
  let root: string;
  let path: string;

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'sealbd-test-'));
    path = join(root, 'data');
  });

  afterEach(() => rm(root, { recursive: true, force: true }));

  it('is made with a mode for its owner alone', async () => {
    const directory = await DataDirectory.open(path);
    await directory.close();
    expect((await stat(path)).mode & 0o777).toBe(0o700);
    expect((await stat(join(path, 'lock'))).mode & 0o777).toBe(0o600);
  });

  it('is one daemon’s, until that one lets go', async () => {
    const first = await DataDirectory.open(path);
    await expect(DataDirectory.open(path)).rejects.toMatchObject({ code: 'CONFLICT' });
    await first.close();
    await (await DataDirectory.open(path)).close();
  });

  it('loses what a daemon that was killed left half made, and nothing else', async () => {
    await mkdir(path);
    for (const name of ['.admin-1f', 'keyring.json.tmp', 'keyring.json'])
      await writeFile(join(path, name), '');
    await (await DataDirectory.open(path)).close();
    expect((await readdir(path)).sort()).toEqual(['keyring.json', 'lock', 'volumes']);
  });

  it('does not follow a link that somebody put in place of the lock', async () => {
    await mkdir(path);
    const elsewhere = join(root, 'elsewhere');
    await symlink(elsewhere, join(path, 'lock'));
    await expect(DataDirectory.open(path)).rejects.toMatchObject({
      code: 'FAILED',
      message: expect.stringContaining('ELOOP'),
    });
    await expect(stat(elsewhere)).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
