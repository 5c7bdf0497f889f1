/** What `key usage` knows of backups: one that is merely out of sight counts as one that is there. */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { KNOWN_BACKUPS_MAX, LOOK_WAIT_MS, SMALL_FILE_BYTES_MAX } from '../../src/base/limits.js';
import { nullLogger } from '../../src/base/log.js';
import { BackupFiles } from '../../src/daemon/backup-files.js';
import { openKnownBackups } from '../../src/daemon/copies.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import type { DekRecord } from '../../src/keys/dek-record.js';
import { scene, verdict } from '../support/backed-up.js';
import { gate } from '../support/hooked-store.js';
import { expectNoLeakedSlots, temporaryDirectory } from '../support/key-fixtures.js';
import { ManualClock } from '../support/manual-clock.js';
import { until } from '../support/until.js';

describe('a key that a backup needs', () => {
  beforeEach(expectNoLeakedSlots);

  it('is not called safe to delete while the backup is out of sight, and is once it is gone', async () => {
    const { watched, above, path, made } = await scene();
    await made();
    await watched.volumes.delete('v', STARTUP);
    const isUnsafe = async (doubt: RegExp): Promise<void> => {
      expect(await verdict(watched, 'scripted:a')).toMatchObject({
        safeToDelete: false,
        doubts: [expect.stringMatching(doubt)],
        caveats: expect.arrayContaining([expect.stringMatching(doubt)]),
      });
    };
    expect(await verdict(watched, 'scripted:a')).toMatchObject({ safeToDelete: false, doubts: ['there'] });

    // What is left of a mount point when its file system is not mounted: a directory of the same name.
    renameSync(above, `${above}.away`);
    await isUnsafe(/ENOENT/);
    mkdirSync(above);
    await isUnsafe(/is another directory than then/);
    rmdirSync(above);
    writeFileSync(above, '');
    await isUnsafe(/ENOTDIR|another directory/);
    rmSync(above);
    renameSync(`${above}.away`, above);
    expect((await verdict(watched, 'scripted:a')).doubts).toEqual(['there']);

    renameSync(path, `${path}.away`);
    mkdirSync(path);
    await isUnsafe(/something is there/);
    rmdirSync(path);
    renameSync(`${path}.away`, path);
    truncateSync(join(path, 'manifest'), 100);
    await isUnsafe(/something is there/);
    rmSync(path, { recursive: true });
    expect(await verdict(watched, 'scripted:a')).toMatchObject({ safeToDelete: true, doubts: ['gone'] });
    await watched.close();
  });

  it('is in doubt where backups lie on a file system that does not answer', async () => {
    const clock = new ManualClock();
    const { watched, made, path } = await scene({ clock });
    await made();
    const hanging = gate();
    void watched.backupFiles.run(path, () => hanging.opened);
    const asked = verdict(watched, 'other:unheard-of');
    let told = false;
    void asked.then(() => {
      told = true;
    });
    await until('the answer', () => {
      clock.advance(LOOK_WAIT_MS);
      return told;
    });
    expect(await asked).toMatchObject({
      safeToDelete: false,
      caveats: expect.arrayContaining([expect.stringContaining('did not answer in 30s')]),
    });
    hanging.open();
    await watched.close();
  });

  it('may be needed by backups that were forgotten', async () => {
    const { watched, made, file } = await scene();
    await made();
    const known = JSON.parse(readFileSync(file, 'utf8'));
    const [one] = known.backups;
    const older = Array.from({ length: KNOWN_BACKUPS_MAX }, (_, i) => ({ ...one, path: `/gone/${i}` }));
    writeFileSync(file, JSON.stringify({ ...known, backups: [...older, one] }));
    const { path } = one;
    rmSync(path, { recursive: true });
    await made();
    const after = JSON.parse(readFileSync(file, 'utf8'));
    // The one that is known to be gone went first.
    expect([after.forgotten, after.backups.length]).toEqual([1, KNOWN_BACKUPS_MAX]);
    expect(await verdict(watched, 'other:unheard-of')).toMatchObject({
      safeToDelete: false,
      caveats: expect.arrayContaining([expect.stringMatching(/^1 older backups were dropped/)]),
    });
    await watched.close();
  });
});

describe('the list of known backups', () => {
  const facts = (n: number) => ({
    backupUuid: new Uint8Array(16).fill(n),
    uuid: new Uint8Array(16),
    name: 'v',
    createdAt: 1_770_000_000_000,
  });
  const dek = (id: number, keyUri: string) =>
    ({ id, keyUri, resolvedKeyId: keyUri, keyVersion: '1' }) as unknown as DekRecord;

  it('is never longer than what can be read back', async () => {
    const directory = temporaryDirectory();
    const known = openKnownBackups(directory, new BackupFiles(), nullLogger);
    const deks = Array.from({ length: 60 }, (_, id) => dek(id, `local:${'k'.repeat(2000)}`));
    for (let n = 1; n <= 6; n++) await known.note(join('/nowhere', String(n)), facts(n), deks);
    expect(statSync(join(directory, 'backups.json')).size).toBeLessThanOrEqual(SMALL_FILE_BYTES_MAX);
    const { backups, forgotten } = await known.list();
    expect(backups.map(({ path }) => path)).toEqual(['/nowhere/3', '/nowhere/4', '/nowhere/5', '/nowhere/6']);
    expect(forgotten).toBe(2);
    const more = Array.from({ length: 600 }, (_, id) => dek(id, `local:${'k'.repeat(2000)}`));
    await known.note('/nowhere/7', facts(7), more);
    expect(await known.list()).toEqual({ backups: [], forgotten: 7 });
  });

  it('has what could not be written, and writes it with the next', async () => {
    const directory = temporaryDirectory();
    const known = openKnownBackups(directory, new BackupFiles(), nullLogger);
    mkdirSync(join(directory, 'backups.json.tmp'));
    await known.note('/nowhere/1', facts(1), [dek(1, 'local:a')]);
    expect(existsSync(join(directory, 'backups.json'))).toBe(false);
    expect((await known.look()).backups).toMatchObject([{ path: '/nowhere/1', present: false }]);
    rmdirSync(join(directory, 'backups.json.tmp'));
    await known.note('/nowhere/2', facts(2), [dek(1, 'local:a')]);
    const again = openKnownBackups(directory, new BackupFiles(), nullLogger);
    expect((await again.list()).backups.map(({ path }) => path)).toEqual(['/nowhere/1', '/nowhere/2']);
  });

  it('tells what a crash left of a backup from one that may be there', async () => {
    const directory = temporaryDirectory();
    const known = openKnownBackups(directory, new BackupFiles(), nullLogger);
    const path = join(directory, 'b');
    mkdirSync(path);
    await known.begun(path, facts(0), [dek(1, 'local:a')]);
    const restarted = openKnownBackups(directory, new BackupFiles(), nullLogger);
    const doubt = async () => (await restarted.look()).backups[0].doubt;
    expect(await doubt()).toMatch(/something is there/);
    writeFileSync(join(path, 'incomplete'), '');
    expect(await doubt()).toBe(null);
    expect((await known.look()).backups[0].doubt).toMatch(/being made/);
    writeFileSync(join(path, 'manifest'), 'damaged');
    expect(await doubt()).toMatch(/something is there/);
  });

  it('takes the absence of one that was noted without its place for no proof', async () => {
    const directory = temporaryDirectory();
    const deks = [{ id: 1, keyUri: 'local:a', resolvedKeyId: 'local:a#1', keyVersion: '1' }];
    const uuid = '53b87fbc-f65a-4d5f-8e45-896aac8f877e';
    const old = { path: '/nowhere/b', uuid, volume: 'v', volumeUuid: uuid, deks };
    const backups = [{ ...old, createdAt: '2026-01-01T00:00:00.000Z' }];
    writeFileSync(join(directory, 'backups.json'), JSON.stringify({ version: 1, backups }));
    const known = openKnownBackups(directory, new BackupFiles(), nullLogger);
    expect(await known.look()).toMatchObject({
      forgotten: 0,
      backups: [{ present: false, doubt: expect.stringMatching(/is not known/) }],
    });
  });
});
