/**
 * The whole life of a customer's key over one real daemon: from a local key to one KMS key and to another, a new DEK for
 * everything, with a kill in the middle; the key taken away, and given back. After each of them the data is what it was,
 * and after the key was taken away nothing of it is left in the daemon's memory.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { RotatedKey } from '../../src/admin/schemas.js';
import { scanDirectory } from '../support/directory-scan.js';
import { Ext4Files, whyNoFiles, whyNotMounted } from '../support/ext4-files.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { KeyNeedles } from '../support/key-needles.js';
import {
  inTheMiddleOf,
  KeyScene,
  keyStatus,
  untilRewritten,
  untilState,
  volumeInfo,
} from '../support/key-scene.js';
import { formsOf, type Needle, scanBuffer, scanProcess } from '../support/memory-scan.js';
import { qemuIo } from '../support/nbd-io.js';
import { hasProgram } from '../support/programs.js';
import { unwrapDek } from '../support/reference-crypto.js';
import { testSeed } from '../support/seeded-random.js';
import { readSuperblock } from '../support/superblock-parser.js';
import { until } from '../support/until.js';
import { BLOCK, seededRandom } from '../support/volume-harness.js';
import { VolumeLoad } from '../support/volume-load.js';
import { localKey } from '../support/volume-parser.js';

const MIB = 2 ** 20;
const FILESYSTEM_BYTES = 128 * MIB;
const FILES_BYTES = 72 * MIB;
const LOAD_BLOCKS = 4096;
const SIZE_BYTES = FILESYSTEM_BYTES + LOAD_BLOCKS * BLOCK;
const INTERVAL_MS = 1000;
const CONFIRM_MS = 500;
/** One interval with its jitter, the confirmation, and what a slow machine takes to do it all. */
const STOPPED_WITHIN_MS = 1.1 * INTERVAL_MS + CONFIRM_MS + 12_000;
const CONFIG = `[tuning]
segment_slots = 1024

[watchdog]
confirm_after = "${CONFIRM_MS}ms"
`;

const skipped = whyNoFiles() ?? (hasProgram('qemu-io') ? undefined : 'qemu-io is not installed');
const notMounted = whyNotMounted();
const how = skipped ?? (notMounted === undefined ? 'mounted' : `as an image: ${notMounted}`);

it.skipIf(skipped !== undefined)(
  `the whole story of a key, with an ext4 filesystem (${how})`,
  {
    timeout: 300_000,
  },
  async () => {
    const scene = await KeyScene.start(CONFIG);
    const { kms, data, volumePath } = scene;
    const [first, second] = [kms.createKey(), kms.createKey()];
    const start = () => scene.daemon(['--poll-interval', `${INTERVAL_MS}ms`]);
    const needles = new KeyNeedles();
    /** Wrapped copies of DEK 1, under one key after the other. */
    const oldWraps: Needle[] = [];
    const wrapOf = (id: number) => readSuperblock(volumePath).deks.find((dek) => dek.id === id)!.wrapped;
    const noteOldWrap = (by: string) => oldWraps.push(...formsOf(`DEK 1 wrapped by ${by}`, wrapOf(1)));

    let daemon = await start();
    await daemon.ok('volume', 'create', 'v', '--size', String(SIZE_BYTES), '--key', 'local:first');
    const ext4 = new Ext4Files('v', FILESYSTEM_BYTES, join(temporaryDirectory(), 'files'));
    await ext4.put(daemon, FILES_BYTES);
    const load = new VolumeLoad({
      ...{ volume: 'v', firstBlock: FILESYSTEM_BYTES / BLOCK, blocks: LOAD_BLOCKS },
      random: seededRandom(testSeed('key story')),
    });
    await load.attach(daemon);
    await load.goOn();
    noteOldWrap('local');
    const { uuid } = readSuperblock(volumePath);
    needles.addDek(1, unwrapDek(localKey(data, 'first'), wrapOf(1), 1, uuid), uuid);
    needles.addSegmentsOf(volumePath);

    // To the customer's key, and to another one.
    for (const key of [first, second]) {
      await daemon.ok('key', 'set', 'v', `awskms:///${key.arn}`);
      noteOldWrap(key.arn);
      expect(await keyStatus(daemon)).toMatchObject({
        ...{ keyUri: `awskms:///${key.arn}`, resolvedKeyId: key.arn, state: 'valid' },
        deks: [{ id: 1, state: 'active', exposed: true }],
      });
      await load.goOn();
    }
    expect(scanBuffer(readFileSync(join(volumePath, 'superblock')), oldWraps)).toHaveLength(1);

    // A new DEK for everything. The daemon is killed in the middle of it.
    let newest = 1;
    await inTheMiddleOf(
      daemon,
      async () => {
        const rotated = await daemon.json<RotatedKey>(['key', 'rotate', 'v', '--reencrypt', '--detach']);
        newest = rotated.dekId;
        return rotated.job;
      },
      async () => {
        needles.addDeksOf(kms, volumePath);
        needles.addSegmentsOf(volumePath);
        await daemon.signal('SIGKILL');
      },
    );
    expect(await load.cutOff()).toBe('closed');
    expect(readSuperblock(volumePath)).toMatchObject({ rewriting: true, activeDek: newest });

    daemon = await start();
    await until('it goes on', () => daemon.log().some(({ msg }) => msg === 're-encryption goes on'));
    await load.verify(daemon);
    await load.attach(daemon);
    await untilRewritten(daemon, 'reencrypt');
    await load.goOn();
    expect(await keyStatus(daemon)).toMatchObject({
      ...{ rotation: null, deks: [{ id: newest, state: 'active', exposed: false }] },
    });
    await load.detach();
    expect(await scanDirectory(data, oldWraps)).toEqual([]);
    const newWrap = formsOf('the wrapped DEK', wrapOf(newest));
    expect(await scanDirectory(data, newWrap)).toEqual(
      ['superblock', 'superblock.bak'].map((name) => `the wrapped DEK, raw in volumes/v/${name}`),
    );
    await load.attach(daemon);
    await load.goOn();

    // What a scan finds of the keys of an open volume, it finds in locked pages that no dump has.
    needles.addSegmentsOf(volumePath);
    const live = scanProcess(daemon.pid, needles.all);
    for (const what of [
      `DEK ${newest}, raw`,
      'data key of',
      'round key 14 of data key',
      'GHASH key of data key',
    ])
      expect(
        live.some(({ name }) => name.startsWith(what)),
        what,
      ).toBe(true);
    expect(live.filter(({ flags }) => !flags.includes('lo') || !flags.includes('dd'))).toEqual([]);
    expect(live.filter(({ name }) => name.includes('DEK 1'))).toEqual([]);

    // The customer takes the key away.
    const disabled = Date.now();
    kms.setState(second, 'Disabled');
    expect(await load.cutOff()).toMatch(/^closed$|error 108/);
    expect(Date.now() - disabled).toBeLessThan(STOPPED_WITHIN_MS);
    await untilState(daemon, 'key-invalid');
    load.settleAcknowledged();
    const reason = expect.stringMatching(/DisabledException.*is disabled/);
    expect(await volumeInfo(daemon)).toMatchObject({ state: 'key-invalid', reason });
    expect(await keyStatus(daemon)).toMatchObject({ state: 'invalid', reason });
    expect((await qemuIo(daemon.uri('v'), 'read 0 4k')).code).not.toBe(0);
    expect((await daemon.run(['volume', 'start', 'v'])).code).toBe(4);
    needles.addSegmentsOf(volumePath);
    expect(scanProcess(daemon.pid, needles.all)).toEqual([]);
    expect(await scanDirectory(data, needles.all)).toEqual([]);

    // And gives it back.
    kms.setState(second, 'Enabled');
    await until('valid', async () => (await keyStatus(daemon)).state === 'valid');
    await daemon.ok('volume', 'start', 'v');
    await load.verify(daemon);
    await ext4.verify(daemon);
    await daemon.ok('volume', 'verify', 'v');
    const events = scene.audit().map(({ event, by }) => `${event} ${(by as { kind: string }).kind}`);
    for (const event of ['key-set cli', 'rotate cli', 'destroy startup', 'stop watchdog', 'start cli'])
      expect(events).toContain(event);
    expect((await daemon.stop()).code).toBe(0);
  },
);
