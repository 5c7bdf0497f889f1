/**
 * What is left of an old state once it was rotated away: no plaintext after `volume encrypt`, no DEK that anybody may have
 * seen after `key rotate --reencrypt`. And what a header backup of before is good for then.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { KeyUsage } from '../../src/admin/schemas.js';
import { Command } from '../../src/nbd/wire/constants.js';
import type { DaemonProcess } from '../support/daemon-process.js';
import { scanDirectory } from '../support/directory-scan.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { KeyScene, keyStatus, volumeInfo } from '../support/key-scene.js';
import { loopFilesystem, unmount, whyNoMounts } from '../support/loop-filesystem.js';
import { type Needle, scanFile } from '../support/memory-scan.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { mustRun } from '../support/programs.js';
import { testSeed } from '../support/seeded-random.js';
import { readSuperblock } from '../support/superblock-parser.js';
import { BLOCK, seededRandom } from '../support/volume-harness.js';
import { VolumeLoad } from '../support/volume-load.js';

const MIB = 2 ** 20;
const SIZE_BYTES = 24 * MIB;
const DISK_BYTES = 112 * MIB;
const CONFIG = `[tuning]
segment_slots = 256
checkpoint_after = "4M"
checkpoint_interval = "500ms"
spares = 3
reserve = 2
`;

/** Around the superblock in a header backup. */
const BACKUP_HEAD_BYTES = 16;
const BACKUP_CRC_BYTES = 4;

/** Not a word of it may be found where plaintext has no business to be. */
const MARKER = `marker-${randomBytes(16).toString('hex')}`;
const MARKERS: Needle[] = [{ name: 'plaintext', bytes: Buffer.from(MARKER) }];

const create = (daemon: DaemonProcess, ...how: string[]) =>
  daemon.ok('volume', 'create', 'v', '--size', String(SIZE_BYTES), ...how);

/** Marked data all over the volume: written, overwritten, trimmed, of all sizes. */
async function markAll(client: RawClient, random: () => number): Promise<void> {
  for (let at = 0; at < SIZE_BYTES; at += MIB)
    expect(await client.writeAt(at, Buffer.alloc(MIB, `${MARKER}|`))).toBe(0);
  for (let i = 0; i < 300; i++) await markSome(client, random, i);
  expect((await client.call(Command.FLUSH, 0, 0)).error).toBe(0);
}

async function markSome(client: RawClient, random: () => number, i: number): Promise<void> {
  const length = 1 + Math.floor(random() * 32 * BLOCK);
  const at = Math.floor(random() * (SIZE_BYTES - length));
  const { error } =
    i % 7 === 0
      ? await client.call(Command.TRIM, at, length)
      : await client.call(Command.WRITE, at, length, { payload: Buffer.alloc(length, `${MARKER}|`) });
  expect(error).toBe(0);
}

describe('after volume encrypt', () => {
  it.each([
    { scheme: 'awskms', exposed: false },
    { scheme: 'local', exposed: true },
  ])(
    'under $scheme: no byte of any file is plaintext, and key status shows exposed: $exposed',
    {
      timeout: 120_000,
    },
    async ({ scheme, exposed }) => {
      const scene = await KeyScene.start(CONFIG);
      const random = seededRandom(testSeed('volume encrypt'));
      const daemon = await scene.daemon();
      const keyUri = scheme === 'local' ? 'local:k' : `awskms:///${scene.kms.createKey().arn}`;
      await daemon.ok('volume', 'create', 'other', '--size', '1M', '--key', keyUri);
      await create(daemon, '--cipher', 'none');
      const client = await RawClient.serving(daemon.ready.listen[0], 'v');
      await markAll(client, random);
      const before = await scanDirectory(scene.volumePath, MARKERS);
      expect(before.filter((hit) => hit.includes('in seg-')).length).toBeGreaterThan(SIZE_BYTES / MIB / 2);

      const encrypting = daemon.run(['volume', 'encrypt', 'v', '--key', keyUri]);
      let ended = false;
      void encrypting.then(() => {
        ended = true;
      });
      for (let i = 0; !ended; i++) await markSome(client, random, i);
      const { code, stdout, stderr } = await encrypting;
      expect([code, stderr.includes('not reached by this: backups')]).toEqual([0, true]);
      expect(stdout).toContain('the plaintext in its directory is overwritten and gone');
      for (let i = 0; i < 50; i++) await markSome(client, random, i);
      expect((await client.call(Command.FLUSH, 0, 0)).error).toBe(0);

      expect(await scanDirectory(scene.data, MARKERS)).toEqual([]);
      expect(await keyStatus(daemon)).toMatchObject({
        ...{ keyUri, state: 'valid', rotation: null },
        deks: [{ id: 1, state: 'active', exposed }],
      });
      expect(await volumeInfo(daemon)).toMatchObject({ cipher: 'aes-256-gcm', keyUri });
      const { data } = await client.readAt(0, SIZE_BYTES);
      expect(data.includes(MARKER)).toBe(true);
      await client.close();
      await daemon.ok('volume', 'verify', 'v');
      await daemon.ok('volume', 'stop', 'v');
      expect(await scanDirectory(scene.data, MARKERS)).toEqual([]);
    },
  );
});

const noMounts = whyNoMounts('mkfs.ext4');

it.skipIf(noMounts !== undefined)(
  `volume encrypt overwrites the plaintext where it lies on the disk${noMounts === undefined ? '' : ` (${noMounts})`}`,
  async () => {
    const disk = await loopFilesystem('ext4', DISK_BYTES);
    const image = join(disk, '..', 'image');
    const scene = await KeyScene.start(CONFIG, join(disk, 'data'));
    const daemon = await scene.daemon();
    await create(daemon, '--cipher', 'none');
    const client = await RawClient.serving(daemon.ready.listen[0], 'v');
    // Nothing is written twice: what a volume let go of while it was in plaintext is not in its files any more.
    for (let at = 0; at < SIZE_BYTES; at += MIB)
      expect(await client.writeAt(at, Buffer.alloc(MIB, `${MARKER}|`))).toBe(0);
    await client.close();
    await daemon.ok('volume', 'stop', 'v');
    await mustRun('sync', ['-f', disk]);
    expect(scanFile(image, MARKERS)).toEqual(['plaintext']);
    await daemon.ok('volume', 'start', 'v');
    await daemon.ok('volume', 'encrypt', 'v', '--key', `awskms:///${scene.kms.createKey().arn}`);
    expect((await daemon.stop()).code).toBe(0);
    await unmount(disk);
    expect(scanFile(image, MARKERS)).toEqual([]);
  },
);

describe('volume encrypt is a conflict, and nothing is begun, where', () => {
  const NOTHING = { suite: 0, rewriting: false, plain: false, deks: [] };

  it('the configuration pins the cipher to none', async () => {
    const scene = await KeyScene.start(`${CONFIG}\n[volumes.v]\ncipher = "none"\n`);
    const uri = `awskms:///${scene.kms.createKey().arn}`;
    const daemon = await scene.daemon();
    await create(daemon, '--cipher', 'none');
    const { generation } = readSuperblock(scene.volumePath);
    const refused = await daemon.run(['volume', 'encrypt', 'v', '--key', uri]);
    expect([refused.code, refused.stderr]).toEqual([
      1,
      expect.stringMatching(/pins the cipher of "v" to none/),
    ]);
    expect(readSuperblock(scene.volumePath)).toMatchObject({ ...NOTHING, generation });
    expect(scene.kms.requests).toEqual([]);

    // Taken out of the configuration, as the message says, it works, and the next start does so with other pins.
    await daemon.stop();
    scene.configure(CONFIG);
    const free = await scene.daemon();
    await free.ok('volume', 'encrypt', 'v', '--key', uri);
    await free.stop();
    scene.configure(`${CONFIG}\n[volumes.v]\ncipher = "aes-256-gcm"\nkey = "${uri}"\n`);
    const pinned = await scene.daemon();
    expect((await volumeInfo(pinned)).state).toBe('serving');
  });

  it('it is encrypted already, or is to be under a key that is not there', async () => {
    const scene = await KeyScene.start(CONFIG);
    const key = scene.kms.createKey();
    const uri = `awskms:///${key.arn}`;
    const daemon = await scene.daemon();
    await create(daemon, '--cipher', 'none');
    scene.kms.setState(key, 'Disabled');
    expect((await daemon.run(['volume', 'encrypt', 'v', '--key', uri])).code).toBe(4);
    expect((await daemon.run(['volume', 'encrypt', 'v', '--key', 'local:nobody'])).code).toBe(4);
    expect((await daemon.run(['volume', 'encrypt', 'v', '--key', 'nonsense'])).code).toBe(2);
    expect(readSuperblock(scene.volumePath)).toMatchObject(NOTHING);
    scene.kms.setState(key, 'Enabled');
    await daemon.ok('volume', 'encrypt', 'v', '--key', uri);
    const again = await daemon.run(['volume', 'encrypt', 'v', '--key', uri]);
    expect([again.code, again.stderr]).toEqual([1, expect.stringContaining('is encrypted already')]);
  });
});

it('a volume that was once local: is exposed no more after key rotate --reencrypt, and old header backups open nothing', {
  timeout: 120_000,
}, async () => {
  const scene = await KeyScene.start(CONFIG);
  const uri = `awskms:///${scene.kms.createKey().arn}`;
  const directory = temporaryDirectory();
  const backup = (name: string) => join(directory, `${name}.header`);
  let daemon = await scene.daemon();
  await create(daemon, '--key', 'local:a');
  const load = new VolumeLoad({
    ...{ volume: 'v', blocks: SIZE_BYTES / BLOCK },
    random: seededRandom(testSeed('exposure')),
  });
  await load.attach(daemon);
  await load.goOn();
  await daemon.ok('volume', 'header-backup', 'v', backup('local'));
  await daemon.ok('key', 'set', 'v', uri);
  await daemon.ok('volume', 'header-backup', 'v', backup('moved'));
  expect((await keyStatus(daemon)).deks).toMatchObject([{ id: 1, exposed: true }]);
  const wraps = ['local', 'moved'].map((name) => readFileSync(backup(name)));
  await daemon.ok('key', 'rotate', 'v', '--reencrypt');
  expect((await keyStatus(daemon)).deks).toMatchObject([{ id: 2, state: 'active', exposed: false }]);
  expect(await daemon.json<KeyUsage[]>(['key', 'usage', 'local:a'])).toMatchObject([{ volumes: [] }]);
  await daemon.ok('volume', 'header-backup', 'v', backup('rotated'));
  await load.goOn();
  await load.detach();
  await daemon.ok('volume', 'stop', 'v');

  // The DEK in them is gone from here, and the superblock in place is all that opens the data.
  const inPlace = readFileSync(join(scene.volumePath, 'superblock'));
  for (const name of ['local', 'moved'])
    for (const force of [[], ['--force']]) {
      const refused = await daemon.run(['volume', 'header-restore', 'v', backup(name), ...force]);
      expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('has DEK 2')]);
    }
  expect(readFileSync(join(scene.volumePath, 'superblock'))).toEqual(inPlace);
  await daemon.ok('volume', 'start', 'v');
  await load.verify(daemon);
  expect((await daemon.stop()).code).toBe(0);

  // Put there by hand, as who has a copy of them could: the volume does not open, and nothing of it is changed.
  for (const wrap of wraps) {
    const superblock = wrap.subarray(BACKUP_HEAD_BYTES, wrap.length - BACKUP_CRC_BYTES);
    for (const name of ['superblock', 'superblock.bak'])
      writeFileSync(join(scene.volumePath, name), superblock);
    daemon = await scene.daemon();
    expect(await volumeInfo(daemon)).toMatchObject({ state: 'failed' });
    expect((await daemon.run(['volume', 'start', 'v'])).code).toBe(5);
    // The backup that was made after the rotation brings it back.
    await daemon.ok('volume', 'header-restore', 'v', backup('rotated'));
    await daemon.ok('volume', 'start', 'v');
    await load.verify(daemon);
    await daemon.ok('volume', 'verify', 'v');
    expect((await daemon.stop()).code).toBe(0);
  }
});
