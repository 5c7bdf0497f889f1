import { beforeEach, describe, expect, it } from 'vitest';
import type { Caller } from '../../src/admin/backend.js';
import { DaemonBackend, type DaemonFacts } from '../../src/daemon/admin-backend.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';
import { createVolume, type Watched, WatchedDirectory } from '../support/watched-volumes.js';

const CLI: Caller = { kind: 'cli', peer: 'unix' };
const PASSPHRASE = 'a passphrase that is long enough';

/** What operators call, over volumes of this process. */
function backendOf(watched: Watched): DaemonBackend {
  // Only the status and the metrics say facts of the process.
  return new DaemonBackend({ ...watched, audit: watched.keyAudit, facts: {} as DaemonFacts });
}

/** The lines since `from`, without what differs from run to run. */
async function lines(watched: Watched, from: number) {
  return (await watched.audit()).slice(from).map(({ time: _time, uuid: _uuid, ...rest }) => rest);
}

describe('the audit log has a line', () => {
  beforeEach(expectNoLeakedSlots);

  it('for each operation on keys that failed: what, of which key, who, why', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start({ policy: { confirmMs: 3_600_000 } });
    const backend = backendOf(watched);
    const volume = await createVolume(watched.volumes, 'v', 'scripted:a');
    await watched.volumes.create({ name: 'n', sizeBytes: 64 * 2 ** 20, cipher: 'none' }, STARTUP);
    const backup = await backend.backUpHeader('v');
    const before = (await watched.audit()).length;
    directory.one.answer = 'refused';
    directory.other.answer = 'refused';
    const refused = expect.stringContaining('the service is refused');
    await expect(backend.setKey('v', 'other:b', false, CLI)).rejects.toThrow('refused');
    await expect(backend.rewrapKey('v', CLI)).rejects.toThrow('refused');
    await expect(backend.rotateKey('v', false, CLI)).rejects.toThrow('refused');
    await expect(
      backend.encryptVolume('n', { keyUri: 'other:b', cipher: 'aes-256-gcm' }, CLI),
    ).rejects.toThrow('refused');
    await expect(backend.restoreHeader('v', backup, false, CLI)).rejects.toThrow('stop it first');
    await expect(backend.setKey('nobody', 'other:b', false, CLI)).rejects.toThrow('no volume');
    const failed = { event: 'failed', volume: 'v', by: CLI };
    expect(await lines(watched, before)).toEqual([
      { ...failed, operation: 'key-set', keyUri: 'other:b', reason: refused },
      { ...failed, operation: 'key-rewrap', reason: refused },
      { ...failed, operation: 'rotate', reason: refused },
      { ...failed, operation: 'encrypt', volume: 'n', keyUri: 'other:b', reason: refused },
      { ...failed, operation: 'header-restore', reason: expect.stringContaining('stop it first') },
      { ...failed, operation: 'key-set', volume: 'nobody', keyUri: 'other:b', reason: 'no volume "nobody"' },
    ]);
    expect(volume.state).toBe('serving');
    expect((await watched.audit()).slice(before).map(({ uuid }) => typeof uuid)).toEqual([
      ...['string', 'string', 'string', 'string', 'string', 'object'],
    ]);
    await watched.close();
  });

  it('for a header that was restored, with the key of before and the one of now', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    const backup = await watched.volumes.backUpHeader('v');
    await watched.keys.set('v', 'other:b', CLI);
    await watched.volumes.stop('v', CLI);
    const before = (await watched.audit()).length;
    await backendOf(watched).restoreHeader('v', backup, true, CLI);
    expect((await lines(watched, before))[0]).toEqual({
      ...{ event: 'header-restore', volume: 'v', by: CLI },
      ...{ from: 'other:b', fromResolvedKeyId: 'other:b', to: 'scripted:a', resolvedKeyId: 'scripted:a' },
    });
    await watched.close();
  });

  it('for a local: key that is made, once', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    const { volumes } = watched;
    await Promise.all(['u', 'v', 'w'].map((name) => createVolume(volumes, name, 'local:one')));
    await createVolume(volumes, 'x', 'local:one');
    await createVolume(volumes, 'y', 'scripted:a');
    const made = (await watched.audit()).filter(({ event }) => event === 'make-local');
    const resolvedKeyId = expect.stringMatching(/^local:one#/);
    expect(made).toMatchObject([
      { volume: null, uuid: null, by: STARTUP, keyUri: 'local:one', resolvedKeyId },
    ]);
    await watched.close();
  });

  it('for a local: key that is given out or taken in, and not for one that was there', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    const backend = backendOf(watched);
    await createVolume(watched.volumes, 'v', 'local:one');
    const before = (await watched.audit()).length;
    const { file } = await backend.exportLocalKey('one', PASSPHRASE, CLI);
    await backend.importLocalKey('one', PASSPHRASE, file, CLI);
    await expect(backend.importLocalKey('one', 'not the passphrase at all', file, CLI)).rejects.toThrow();
    await expect(backend.exportLocalKey('none', PASSPHRASE, CLI)).rejects.toThrow();
    const shared = { volume: null, by: CLI };
    expect(await lines(watched, before)).toEqual([
      { event: 'export-local', ...shared, keyUri: 'local:one' },
      {
        ...{ event: 'failed', ...shared, operation: 'import-local', keyUri: 'local:one' },
        reason: expect.any(String),
      },
      {
        ...{ event: 'failed', ...shared, operation: 'export-local', keyUri: 'local:none' },
        reason: expect.any(String),
      },
    ]);
    const other = await new WatchedDirectory().start();
    await backendOf(other).importLocalKey('one', PASSPHRASE, file, CLI);
    expect(await lines(other, 0)).toEqual([{ event: 'import-local', ...shared, keyUri: 'local:one' }]);
    await other.close();
    await watched.close();
  });
});
