/** A backup that says that it holds plaintext proves nothing, and is restored where that was asked for. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openChain } from '../../src/backup/backup-directory.js';
import { encodeManifest } from '../../src/backup/manifest.js';
import { systemClock } from '../../src/base/clock.js';
import { rotate } from '../../src/daemon/dek-rotation.js';
import { STARTUP } from '../../src/daemon/volume-events.js';
import { withKeys } from '../../src/keys/dek-ring.js';
import { SUITE_GCM, SUITE_NONE } from '../../src/native/addon.js';
import { ended, scene } from '../support/backed-up.js';
import { storeAt } from '../support/backups.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';
import { fillVolume } from '../support/watched-volumes.js';

it('a backup of an encrypted volume whose manifest claims to be of one without a cipher is refused', async () => {
  expectNoLeakedSlots();
  const { watched, path, made } = await scene();
  await made();
  const [{ manifest }] = await openChain(path, storeAt);
  const whole = readFileSync(join(path, 'manifest'));
  const forged = withKeys(new Map(), (keyOf) =>
    encodeManifest({ ...manifest, suite: SUITE_NONE, dekId: 0, deks: [], origins: [] }, keyOf(0)!),
  );
  writeFileSync(join(path, 'manifest'), forged);
  const restore = (plaintext?: boolean) =>
    watched.restores.restore('w', { path, salvage: false, plaintext }, STARTUP);
  const refused = { code: 'CONFLICT', message: expect.stringContaining('--plaintext') };
  for (const asked of [undefined, false]) await expect(restore(asked)).rejects.toMatchObject(refused);
  expect(watched.volumes.find('w')).toBeUndefined();

  writeFileSync(join(path, 'manifest'), whole);
  const { result } = await ended(watched, await restore());
  const restored = { cipher: 'aes-256-gcm', keyUri: 'scripted:a', resolvedKeyId: 'scripted:a' };
  expect(result).toMatchObject({ restored });
  await watched.close();
});

it('a backup of a volume without a cipher is restored where plaintext is asked for', async () => {
  const { watched, path } = await scene();
  const volume = await watched.volumes.create({ name: 'n', sizeBytes: 2 ** 24, cipher: 'none' }, STARTUP);
  await fillVolume(volume, 5, 1);
  await ended(watched, await watched.backups.create('n', { path, salvage: false }, STARTUP));
  const restore = (plaintext: boolean) =>
    watched.restores.restore('w', { path, salvage: false, plaintext }, STARTUP);
  await expect(restore(false)).rejects.toMatchObject({ code: 'CONFLICT' });
  const { state, result } = await ended(watched, await restore(true));
  expect([state, result?.restored]).toEqual(['done', { cipher: 'none', keyUri: null, resolvedKeyId: null }]);
  rmSync(path, { recursive: true });
  await watched.close();
});

it('a backup of a volume that is not all encrypted yet is restored where plaintext is asked for', async () => {
  const { watched, path } = await scene();
  const volume = await watched.volumes.create({ name: 'n', sizeBytes: 2 ** 24, cipher: 'none' }, STARTUP);
  await fillVolume(volume, 5, 1);
  // Its first DEK is active, and nothing is rewritten yet.
  await watched.volumes.changeDeks('n', STARTUP, (header, device) =>
    rotate(header, device, {
      ...{ providers: watched.providers, clock: systemClock, keyUri: 'scripted:a' },
      ...{ rewrite: false, suite: SUITE_GCM },
    }),
  );
  await ended(watched, await watched.backups.create('n', { path, salvage: false }, STARTUP));
  expect((await openChain(path, storeAt))[0].manifest).toMatchObject({ plain: true, suite: SUITE_GCM });
  const restore = (plaintext: boolean) =>
    watched.restores.restore('w', { path, salvage: false, plaintext }, STARTUP);
  await expect(restore(false)).rejects.toMatchObject({
    code: 'CONFLICT',
    message: expect.stringContaining('--plaintext'),
  });
  expect(watched.volumes.find('w')).toBeUndefined();
  expect(await ended(watched, await restore(true))).toMatchObject({ state: 'done', error: null });
  await watched.close();
});
