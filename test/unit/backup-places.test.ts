/** Which file system a path is on, told without touching it, and how many threads the files of each may hold. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { BACKUP_FILE_THREADS_MAX } from '../../src/base/limits.js';
import { BackupFiles } from '../../src/daemon/backup-files.js';
import { deviceOf, readMounts } from '../../src/store/mounts.js';
import { gate } from '../support/hooked-store.js';
import { temporaryDirectory } from '../support/key-fixtures.js';

const nothing = async (): Promise<undefined> => undefined;
const turn = () => new Promise((resolve) => setTimeout(resolve, 20));

describe('the device of a path', () => {
  it('is that of the last mount on its way, and a mount is not asked for links', async () => {
    const mounts = new Map([
      ['/', '1:0'],
      ['/mnt/nfs', '2:0'],
      ['/mnt/nfs/in/it', '3:0'],
    ]);
    const asked: string[] = [];
    const linkAt = async (device: string, path: string): Promise<string | undefined> => {
      asked.push(`${device} ${path}`);
      return path === '/backups' ? 'mnt/there' : path === '/mnt/there' ? '../mnt/nfs/x' : undefined;
    };
    const of = (path: string) => deviceOf(path, mounts, linkAt);
    expect(await Promise.all(['/', '/mnt', '/mnt/nfsx'].map(of))).toEqual(['1:0', '1:0', '1:0']);
    expect(await Promise.all(['/mnt/nfs', '/mnt/nfs/a/../b', '/mnt/nfs/in/it/a'].map(of))).toEqual([
      '2:0',
      '2:0',
      '3:0',
    ]);
    asked.length = 0;
    expect(await of('/backups/b')).toBe('2:0');
    expect(asked).toEqual([
      '1:0 /backups',
      '1:0 /mnt',
      '1:0 /mnt/there',
      '1:0 /mnt',
      '2:0 /mnt/nfs/x',
      '2:0 /mnt/nfs/x/b',
    ]);
    const endless = deviceOf('/loop', mounts, async () => '/loop');
    expect(await endless).toBe('1:0');
  });

  it('comes from the table of the kernel, whose last line for a point counts', async () => {
    const file = join(temporaryDirectory(), 'mountinfo');
    const line = (device: string, point: string) => `29 1 ${device} / ${point} rw shared:1 - ext4 /dev/x rw`;
    writeFileSync(
      file,
      `${[line('8:1', '/'), line('0:30', '/a\\040b\\134c'), line('0:31', '/a\\040b\\134c')].join('\n')}\n`,
    );
    expect([...readMounts(file)]).toEqual([
      ['/', '8:1'],
      ['/a b\\c', '0:31'],
    ]);
    expect(readMounts(join(file, '..', 'none')).size).toBe(0);
    expect(await deviceOf('/proc/self', readMounts(), nothing)).not.toBe(
      await deviceOf('/', readMounts(), nothing),
    );
  });
});

describe('the files of backups', () => {
  /** Real directories, that are other file systems as far as the table says. */
  function places(count: number) {
    const top = temporaryDirectory();
    const paths = Array.from({ length: count }, (_, i) => join(top, `p${i}`));
    for (const path of paths) mkdirSync(path);
    const mounts = new Map([['/', 'root'], ...paths.map((path, i): [string, string] => [path, `d${i}`])]);
    return { top, paths, files: new BackupFiles(() => mounts) };
  }

  it('of one place that hangs hold up nothing else, by whatever link it is reached', async () => {
    const { top, paths, files } = places(2);
    symlinkSync(paths[0], join(top, 'link'));
    const hanging = gate();
    const begun = gate();
    const first = files.run(join(top, 'link', 'x'), () => {
      begun.open();
      return hanging.opened;
    });
    await begun.opened;
    let listed = false;
    const same = files
      .at(paths[0])
      .list()
      .then(() => {
        listed = true;
      });
    expect(await files.at(paths[1]).list()).toEqual([]);
    expect((await files.at(top).list()).sort()).toEqual(['link', 'p0', 'p1']);
    expect(listed).toBe(false);
    hanging.open();
    await Promise.all([first, same]);
  });

  it('hold so many threads together, and leave one to the volumes', async () => {
    const { paths, files } = places(BACKUP_FILE_THREADS_MAX + 1);
    expect(BACKUP_FILE_THREADS_MAX).toBe(3);
    const hanging = gate();
    let under = 0;
    const all = paths.map((path) =>
      files.run(path, () => {
        under += 1;
        return hanging.opened;
      }),
    );
    await expect.poll(() => under).toBe(BACKUP_FILE_THREADS_MAX);
    await turn();
    expect(under).toBe(BACKUP_FILE_THREADS_MAX);
    hanging.open();
    await Promise.all(all);
    expect(under).toBe(paths.length);
  });
});
