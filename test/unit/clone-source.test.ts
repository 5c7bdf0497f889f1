/** What a clone and a restore depend on beside their own volume: the one that is cloned, and the pins of the new one. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { ended, holdCreation, scene } from '../support/backed-up.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';
import { createVolume, fillVolume } from '../support/watched-volumes.js';

describe('a clone', () => {
  beforeEach(expectNoLeakedSlots);

  it('ends with the volume that it is made of, which is not rolled back meanwhile', async () => {
    const { directory, watched } = await scene();
    await watched.snapshots.create('v', 's', STARTUP);
    const { open, reached } = holdCreation(/^seg-[0-9a-f]+$/);
    const job = await watched.restores.clone('v', 's', 'c', STARTUP);
    await reached;
    await expect(watched.snapshots.rollBack('v', 's', STARTUP)).rejects.toMatchObject({ code: 'CONFLICT' });
    await watched.volumes.stop('v', STARTUP);
    open();
    expect((await ended(watched, job)).state).toBe('cancelled');
    expect(watched.volumes.find('c')).toBeUndefined();
    expect(readdirSync(join(directory.path, 'volumes'))).toEqual(['v']);
    await watched.close();
  });
});

describe('a restore', () => {
  it('is refused where a pinned alias leads elsewhere by now, since the volume would not open', async () => {
    const pins = new Map([['x', { keyUris: ['scripted:alias'] }]]);
    const { directory, watched, path } = await scene({ pins });
    directory.one.resolve = (uri) => (uri === 'scripted:alias' ? 'scripted:first' : uri);
    await fillVolume(await createVolume(watched.volumes, 'w', 'scripted:alias'), 20, 1);
    const request = { path, salvage: false };
    await ended(watched, await watched.backups.create('w', request, STARTUP));
    directory.one.resolve = (uri) => (uri === 'scripted:alias' ? 'scripted:second' : uri);
    const refused = await ended(watched, await watched.restores.restore('x', request, STARTUP));
    expect(refused).toMatchObject({
      state: 'failed',
      error: { code: 'CONFLICT', message: expect.stringContaining('scripted:first') },
    });
    expect(readdirSync(join(directory.path, 'volumes')).sort()).toEqual(['v', 'w']);
    await watched.close();
  });
});
