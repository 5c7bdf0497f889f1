/** Where a backup may be made: never among the volumes, where the next start would take it for unfinished, and erase it. */
import { mkdirSync, readdirSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, it, onTestFinished, vi } from 'vitest';
import { KnownBackups } from '../../src/daemon/known-backups.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { ended, scene } from '../support/backed-up.js';

const refused = { code: 'USAGE', message: expect.stringMatching(/inside the directory of the volumes/) };

it('a backup through a link into the volumes is refused, however much of its path is missing', async () => {
  const { directory, watched, above } = await scene();
  const volumes = join(directory.path, 'volumes');
  const before = readdirSync(volumes);
  symlinkSync(volumes, join(above, 'link'));
  symlinkSync(join(volumes, 'v'), join(above, 'volume'));
  mkdirSync(join(above, 'real'));
  symlinkSync(join(above, 'link'), join(above, 'real', 'again'));
  const ways = [
    'link',
    'link/b',
    'link/.new/b',
    'link/x/y/z',
    'volume/b',
    'volume',
    'real/again/.n/b',
    'none/../link/b',
  ];
  for (const way of ways) {
    const path = `${above}/${way}`;
    const backup = watched.backups.create('v', { path, salvage: false }, STARTUP);
    expect([way, await backup.catch((error: unknown) => error)]).toMatchObject([way, refused]);
  }
  expect(readdirSync(volumes)).toEqual(before);
  await watched.close();
});

it('a backup whose path becomes one into the volumes before it is made is refused, and leaves nothing there', async () => {
  const { directory, watched, above } = await scene();
  const volumes = join(directory.path, 'volumes');
  const before = readdirSync(volumes);
  const leaveTo = KnownBackups.prototype.leaveTo;
  const spy = vi.spyOn(KnownBackups.prototype, 'leaveTo');
  onTestFinished(() => spy.mockRestore());
  spy.mockImplementation(async function (this: KnownBackups, path: string) {
    renameSync(above, `${above}-away`);
    symlinkSync(volumes, above);
    return leaveTo.call(this, path);
  });
  const path = join(above, '.x', 'b');
  const job = await ended(watched, await watched.backups.create('v', { path, salvage: false }, STARTUP));
  expect(job).toMatchObject({ state: 'failed', error: refused });
  expect(readdirSync(volumes)).toEqual(before);
  await watched.close();
});

it('a backup through a link to elsewhere is made, with what is missing of its path', async () => {
  const { watched, above } = await scene();
  const elsewhere = join(dirname(above), 'elsewhere');
  mkdirSync(elsewhere);
  rmSync(above, { recursive: true });
  symlinkSync(elsewhere, above);
  const path = join(above, '..volumes', 'x', 'b');
  const job = await ended(watched, await watched.backups.create('v', { path, salvage: false }, STARTUP));
  expect(job).toMatchObject({ state: 'done', error: null });
  expect(readdirSync(join(elsewhere, '..volumes', 'x', 'b'))).toContain('manifest');
  await watched.close();
});
