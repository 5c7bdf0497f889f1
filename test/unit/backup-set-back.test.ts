/** Incremental backups of a volume whose directory was set back: another history with the same sequences and segment ids. */
import { cpSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { BackupSubject } from '../support/backup-subject.js';
import { verify } from '../support/backups.js';

const cipher = new CipherPool({ threads: 1 });
afterAll(() => cipher.destroy());

/** Writes blocks 300 to 315 first: in each history with the same sequences. */
async function history(source: BackupSubject, rounds: number): Promise<void> {
  await source.write(300, 16);
  for (let i = 0; i < rounds; i++) await source.write(600, 24);
  await source.volume.flush();
}

/** `before` is run on a directory that is then set back. */
async function setBack(source: BackupSubject, before: () => Promise<void>): Promise<void> {
  await source.write(0, 24);
  await source.sealed.stop();
  const saved = source.directory('saved');
  cpSync(source.store.path, saved, { recursive: true });
  await source.reopen();
  await before();
  await source.sealed.stop();
  for (const name of readdirSync(source.store.path)) rmSync(join(source.store.path, name));
  cpSync(saved, source.store.path, { recursive: true });
  await source.reopen();
}

describe.each([0, 1, 2] as const)('a directory that was set back, suite %d', (suite) => {
  it('what another history wrote with the same sequences is no move', async () => {
    const source = await BackupSubject.create(suite, cipher, 4);
    await setBack(source, async () => {
      await history(source, 1);
      await source.backUp('a0');
    });
    await history(source, 30);
    await source.volume.compact();
    expect(source.volume.stats().movedBytes).toBeGreaterThan(0);

    const base = source.directory('a0');
    const { slots } = await source.backUp('a1', { base });
    expect(slots).toBe(16 + 24);
    expect((await verify(source, source.directory('a1'))).problems).toEqual([]);
    const { path } = await source.restore('a1', 'w');
    const copy = await source.restored(path, source.versions);
    await copy.expectContent();
    await copy.stop();
    await source.stop();
  });

  it('a segment that has the id of another one of the base is refused', async () => {
    const source = await BackupSubject.create(suite, cipher, 4);
    await setBack(source, async () => {
      await history(source, 1);
      await source.backUp('a0');
    });
    await history(source, 2);
    const refused = { code: 'CONFLICT', message: expect.stringMatching(/set back: make a full backup/) };
    await expect(source.backUp('a1', { base: source.directory('a0') })).rejects.toMatchObject(refused);
    expect(readdirSync(source.directory('a1'))).toEqual([]);
    await source.backUp('a1');
    expect((await verify(source, source.directory('a1'))).problems).toEqual([]);
    await source.stop();
  });
});
