import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { Caller } from '../../src/admin/backend.js';
import { withKeys } from '../../src/keys/dek-ring.js';
import { decodeSuperblock, encodeSuperblock } from '../../src/keys/superblock.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';
import { createVolume, WatchedDirectory } from '../support/watched-volumes.js';

const CLI: Caller = { kind: 'cli', peer: 'unix' };

/** One copy is forged: a generation more, and a key of somebody else. */
async function forgedVolume() {
  const directory = new WatchedDirectory();
  const watched = await directory.start();
  await createVolume(watched.volumes, 'v', 'scripted:a');
  await watched.volumes.stop('v', CLI);
  const path = join(directory.path, 'volumes/v/superblock');
  const { superblock } = decodeSuperblock(readFileSync(path));
  const deks = superblock.deks.map((dek) => ({ ...dek, keyUri: 'other:nobody' }));
  const forged = { ...superblock, deks, generation: superblock.generation + 1 };
  writeFileSync(
    path,
    withKeys(new Map(), (keyOf) => encodeSuperblock(forged, () => keyOf(0))),
  );
  return { directory, watched, superblock };
}

describe('a copy of the superblock that is newer and names another key', () => {
  beforeEach(expectNoLeakedSlots);

  it.each(['refused', 'unreachable', 'damaged'] as const)(
    'does not make way for the older one where that key is %s, and the reason names both copies',
    async (answer) => {
      const { directory, watched, superblock } = await forgedVolume();
      directory.other.answer = answer;
      const { generation } = superblock;
      const reason =
        `the service is ${answer} (the copies of the superblock disagree about the key: ` +
        `superblock, of generation ${generation + 1}, names other:nobody; ` +
        `superblock.bak, of generation ${generation}, names scripted:a)`;
      await expect(watched.volumes.start('v', CLI)).rejects.toMatchObject({ kind: answer, message: reason });
      expect(watched.volumes.get('v')).toMatchObject({ state: 'key-invalid', reason });
      await watched.volumes.checkKey('v', CLI);
      const detail = answer === 'unreachable' ? '' : ' (scripted:a, as the script has it)';
      expect(watched.volumes.get('v').keyCheck?.reason).toBe(`${reason}${detail}`);
      await watched.close();
    },
  );

  it('is not mentioned where both copies name the same key', async () => {
    const directory = new WatchedDirectory();
    const watched = await directory.start();
    await createVolume(watched.volumes, 'v', 'scripted:a');
    await watched.volumes.stop('v', CLI);
    directory.one.answer = 'refused';
    await expect(watched.volumes.start('v', CLI)).rejects.toMatchObject({
      message: 'the service is refused',
    });
    await watched.close();
  });
});
