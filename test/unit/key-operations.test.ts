import { copyFileSync, linkSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Caller } from '../../src/admin/backend.js';
import type { KeyUsage } from '../../src/admin/schemas.js';
import { newestDek } from '../../src/keys/superblock.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';
import { createVolume, type Watched, WatchedDirectory } from '../support/watched-volumes.js';

const CLI: Caller = { kind: 'cli', peer: 'unix' };

function keyOf({ volumes }: Watched, name: string): string | undefined {
  return newestDek(volumes.get(name).superblock!)?.keyUri;
}

/** What was recorded since `from`, without what differs from run to run. */
async function eventsOf(watched: Watched, from: number) {
  const lines = (await watched.audit()).slice(from);
  return lines.map(({ time: _time, uuid: _uuid, ...rest }) => rest);
}

describe('key set', () => {
  beforeEach(expectNoLeakedSlots);

  it('moves a serving volume, tells from where to where, and writes one line for it and one for each wrap', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    const before = (await watched.audit()).length;
    expect(await watched.keys.set('v', 'other:b', CLI)).toEqual({
      volume: 'v',
      moved: true,
      from: { keyUri: 'scripted:a', resolvedKeyId: 'scripted:a' },
      ...{ keyUri: 'other:b', resolvedKeyId: 'other:b', keyVersion: '1' },
      ...{ deks: [1], exposed: false },
    });
    const shared = { volume: 'v', by: CLI };
    expect(await eventsOf(watched, before)).toEqual([
      {
        ...{ event: 'key-set', ...shared, from: 'scripted:a', to: 'other:b' },
        ...{ resolvedKeyId: 'other:b', fromResolvedKeyId: 'scripted:a' },
      },
      { event: 'wrap', ...shared, dekId: 1, keyUri: 'other:b', resolvedKeyId: 'other:b' },
    ]);
    // The old key is of no more use to it, and no more missed.
    directory.one.answer = 'refused';
    for (let times = 0; times < 2; times += 1) await watched.watchdog.check('v');
    expect(watched.volumes.get('v').state).toBe('serving');
    await watched.volumes.stop('v', CLI);
    await watched.volumes.start('v', CLI);
    await watched.close();
  });

  it('to the key that it is under already is a rewrap, and told as one', async () => {
    const watched = await new WatchedDirectory().start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    const before = (await watched.audit()).length;
    expect(await watched.keys.set('v', 'scripted:a', CLI)).toMatchObject({ moved: false });
    expect((await eventsOf(watched, before)).map(({ event }) => event)).toEqual(['key-rewrap', 'wrap']);
    await watched.close();
  });

  it('does not move a volume whose key was withdrawn, though it still serves', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    directory.one.answer = 'refused';
    const before = (await watched.audit()).length;
    await expect(watched.keys.set('v', 'other:b', CLI)).rejects.toMatchObject({ kind: 'refused' });
    expect(keyOf(watched, 'v')).toBe('scripted:a');
    for (let times = 0; times < 2; times += 1) await watched.watchdog.check('v');
    expect(watched.volumes.get('v').state).toBe('key-invalid');
    await expect(watched.keys.set('v', 'other:b', CLI)).rejects.toMatchObject({ kind: 'refused' });
    expect((await eventsOf(watched, before)).map(({ event }) => event)).toEqual(['key-state', 'stop']);
    await watched.close();
  });

  it('mends a damaged wrap, and the key is valid again at once', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    directory.one.queue.push('damaged', 'damaged');
    await watched.watchdog.check('v');
    expect(watched.volumes.get('v').keyCheck?.state).toBe('damaged');
    await watched.keys.set('v', 'scripted:a', CLI);
    expect(directory.one.queue).toEqual([]);
    expect(watched.volumes.get('v').keyCheck?.state).toBe('valid');
    await watched.close();
  });

  it.each(['stopped', 'key-invalid'] as const)(
    'moves a %s volume whose key can be used, and leaves it so',
    async (state) => {
      const directory = new WatchedDirectory();
      const watched = await directory.start();
      await createVolume(watched.volumes, 'v', 'scripted:a');
      if (state === 'stopped') await watched.volumes.stop('v', CLI);
      else {
        directory.one.answer = 'refused';
        for (let times = 0; times < 2; times += 1) await watched.watchdog.check('v');
        directory.one.answer = 'yes';
      }
      await watched.keys.set('v', 'other:b', CLI);
      expect(watched.volumes.get('v')).toMatchObject({ state, keyCheck: { state: 'valid' } });
      expect(keyOf(watched, 'v')).toBe('other:b');
      directory.one.answer = 'refused';
      await watched.volumes.start('v', CLI);
      await watched.close();
    },
  );

  it('is a CONFLICT for a volume without a key, and NOT_FOUND without a volume', async () => {
    const watched = await new WatchedDirectory().start();
    await watched.volumes.create({ name: 'plain', sizeBytes: 2 ** 26, cipher: 'none' }, CLI);
    const conflict = { code: 'CONFLICT', message: expect.stringContaining('none') };
    await expect(watched.keys.set('plain', 'scripted:a', CLI)).rejects.toMatchObject(conflict);
    await expect(watched.keys.rewrap('plain', CLI)).rejects.toMatchObject(conflict);
    await watched.volumes.stop('plain', CLI);
    await expect(watched.keys.set('plain', 'scripted:a', CLI)).rejects.toMatchObject(conflict);
    await expect(watched.keys.set('nobody', 'scripted:a', CLI)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(watched.keys.set('plain', 'nothing', CLI)).rejects.toMatchObject({ code: 'USAGE' });
    await watched.close();
  });

  it('does not move a volume away from its pin, and tells what to do; to another key of the list it does', async () => {
    const directory = new WatchedDirectory();
    const pinned = (...keyUris: string[]) => ({ pins: new Map([['v', { keyUris }]]) });
    const first = await directory.start(pinned('scripted:a'));
    await createVolume(first.volumes, 'v', 'scripted:a');
    await expect(first.keys.set('v', 'other:b', CLI)).rejects.toMatchObject({
      code: 'CONFLICT',
      message: expect.stringContaining('key = ["scripted:a", "other:b"]'),
    });
    await first.close();
    const second = await directory.start(pinned('scripted:a', 'other:b'));
    await second.keys.set('v', 'other:b', CLI);
    await second.close();
    const third = await directory.start(pinned('other:b'));
    expect(third.volumes.get('v').state).toBe('serving');
    await third.close();
    const fourth = await directory.start(pinned('scripted:a'));
    expect(fourth.volumes.get('v').reason).toContain('pins');
    await fourth.close();
  });

  it('says that a DEK from under local: stays exposed', async () => {
    const watched = await new WatchedDirectory().start();
    await createVolume(watched.volumes, 'v', 'local:a');
    expect(await watched.keys.set('v', 'scripted:a', CLI)).toMatchObject({ moved: true, exposed: true });
    await watched.close();
  });
});

describe('key check', () => {
  beforeEach(expectNoLeakedSlots);

  it('is ok where every step is, and bad usage with a URI of no known kind', async () => {
    const watched = await new WatchedDirectory().start();
    expect(await watched.keys.check('scripted:a')).toEqual({
      ...{ keyUri: 'scripted:a', resolvedKeyId: 'scripted:a', keyVersion: null, ok: true },
      ...{ steps: [{ permission: 'scripted', outcome: 'ok' }], warnings: [] },
    });
    await expect(watched.keys.check('nothing')).rejects.toMatchObject({ code: 'USAGE' });
    await watched.close();
  });

  it('is not ok where a step is not, and makes no key', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    const report = await watched.keys.check('local:missing');
    expect(report).toMatchObject({ ok: false, resolvedKeyId: null });
    expect(report.steps.some((step) => step.outcome !== 'ok' && step.error !== undefined)).toBe(true);
    expect(() => readFileSync(join(directory.path, 'keyring.json'))).toThrow('ENOENT');
    await watched.close();
  });
});

const brief = (usage: KeyUsage[]) =>
  usage.map(({ keyUri, volumes, safeToDelete }) => [
    keyUri,
    volumes.flatMap(({ volume, deks }) => deks.map((dek) => `${volume}/${dek.id} ${dek.state}`)),
    safeToDelete,
  ]);

describe('key usage', () => {
  beforeEach(expectNoLeakedSlots);

  it('counts volumes that serve, are stopped, or have lost their key', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'serving', 'scripted:a');
    await createVolume(watched.volumes, 'stopped', 'scripted:a');
    await createVolume(watched.volumes, 'lost', 'other:b');
    await watched.volumes.create({ name: 'plain', sizeBytes: 2 ** 26, cipher: 'none' }, CLI);
    await watched.volumes.stop('stopped', CLI);
    directory.other.answer = 'refused';
    for (let times = 0; times < 2; times += 1) await watched.watchdog.check('lost');
    expect(watched.volumes.get('lost').state).toBe('key-invalid');
    const usage = await watched.keys.usage(undefined);
    expect(brief(usage)).toEqual([
      ['other:b', ['lost/1 active'], false],
      ['scripted:a', ['serving/1 active', 'stopped/1 active'], false],
    ]);
    expect(usage[1]).toMatchObject({ resolvedKeyId: 'scripted:a', keyVersions: ['1'] });
    const [serving, stopped] = usage[1].volumes.map(({ deks }) => deks[0]);
    expect(serving).toMatchObject({
      exposed: false,
      segments: expect.any(Number),
      bytes: expect.any(Number),
    });
    expect(stopped).toMatchObject({ segments: null, bytes: null });
    expect(usage[1].caveats.join('\n')).toMatch(/backups.*\n.*other data directories/);
    await watched.close();
  });

  it('of a key that nothing names is safe to delete; that of one that a volume moved to is not', async () => {
    const watched = await new WatchedDirectory().start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    await watched.keys.set('v', 'other:b', CLI);
    expect(brief(await watched.keys.usage('scripted:a'))).toEqual([['scripted:a', [], true]]);
    expect(brief(await watched.keys.usage('other:b'))).toEqual([['other:b', ['v/1 active'], false]]);
    await watched.volumes.stop('v', CLI);
    expect(brief(await watched.keys.usage('scripted:a'))).toEqual([['scripted:a', [], true]]);
    await watched.close();
  });

  it('counts a copy of the superblock that still names the old key', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    const file = (name: string) => join(directory.path, 'volumes', 'v', name);
    copyFileSync(file('superblock'), join(directory.path, 'old'));
    await watched.keys.set('v', 'other:b', CLI);
    copyFileSync(join(directory.path, 'old'), file('superblock.bak'));
    expect(brief(await watched.keys.usage('scripted:a'))).toEqual([['scripted:a', ['v/1 active'], false]]);
    await watched.close();
  });

  it('is never safe while a volume has a superblock that can not be read', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    await watched.volumes.stop('v', CLI);
    for (const name of ['superblock', 'superblock.bak'])
      writeFileSync(join(directory.path, 'volumes', 'v', name), 'gone');
    const [row] = await watched.keys.usage('other:b');
    expect(row).toMatchObject({ keyUri: 'other:b', volumes: [], safeToDelete: false });
    expect(row.caveats.join('\n')).toContain('volume "v" may need a key that is not listed');
    await watched.close();
  });

  it('finds a key by another name of it, by the name that spells it out, and by one that it has no more', async () => {
    const directory = new WatchedDirectory();
    directory.one.resolve = () => 'arn:key/1';
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:alias/x');
    const users = async (uri: string) => (await watched.keys.usage(uri)).flatMap(({ volumes }) => volumes);
    expect(await users('scripted:alias/y')).toHaveLength(1);
    directory.one.resolve = () => 'arn:key/2';
    expect(await users('scripted:///arn:key/1')).toHaveLength(1);
    expect(await users('scripted:1')).toHaveLength(1);
    expect(await users('scripted:alias/y')).toEqual([]);
    const [row] = await watched.keys.usage('scripted:alias/x');
    expect(row).toMatchObject({ resolvedKeyId: 'arn:key/1', safeToDelete: false });
    expect(row.caveats[0]).toContain('scripted:alias/x names arn:key/2 now');
    await watched.close();
  });

  it('is not safe where the service does not tell which key a name means', async () => {
    const watched = await new WatchedDirectory().start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    const [row] = await watched.keys.usage('local:gone');
    expect(row).toMatchObject({ resolvedKeyId: null, volumes: [], safeToDelete: false });
    expect(row.caveats[0]).toContain('which key local:gone names is not known');
    await watched.close();
  });
});

describe('volume delete', () => {
  it('overwrites a superblock that a crash left unfinished, like the two copies', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    const names = ['superblock', 'superblock.bak', 'superblock.new'];
    const file = (name: string) => join(directory.path, 'volumes', 'v', name);
    copyFileSync(file('superblock'), file('superblock.new'));
    for (const name of names) linkSync(file(name), join(directory.path, name));
    await watched.volumes.delete('v', CLI);
    for (const name of names) {
      const left = readFileSync(join(directory.path, name));
      expect([name, left.length > 0, left.every((byte) => byte === 0)]).toEqual([name, true, true]);
      rmSync(join(directory.path, name));
    }
    await watched.close();
  });
});
