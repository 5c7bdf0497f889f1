/** Keys of a volume change on a disk without a free byte; re-encryption there works, or says why not and loses nothing. */
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { Command } from '../../src/nbd/wire/constants.js';
import type { DaemonProcess, RunResult } from '../support/daemon-process.js';
import { KeyScene, keyStatus, lastJob, volumeInfo } from '../support/key-scene.js';
import {
  freeBytes,
  loopFilesystem,
  takeSpace,
  takeSpaceInTurns,
  whyNoMounts,
} from '../support/loop-filesystem.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { testSeed } from '../support/seeded-random.js';
import { readSuperblock } from '../support/superblock-parser.js';
import { until } from '../support/until.js';
import { BLOCK, seededRandom } from '../support/volume-harness.js';
import { VolumeLoad } from '../support/volume-load.js';

const MIB = 2 ** 20;
const DISK_BYTES = 112 * MIB;
const LOAD_BLOCKS = 2048;
/** Behind the load's part. */
const FILL_FROM = LOAD_BLOCKS * BLOCK;
const FILL_BYTES = 24 * MIB;
const SIZE_BYTES = FILL_FROM + FILL_BYTES;
const CONFIG = `[tuning]
segment_slots = 1024
checkpoint_after = "8M"
checkpoint_interval = "1s"
reserve = 2
spares = 2
`;
const TAKE_MS = 20;
const NO_ROOM = /ENOSPC|no room/;
const skipped = whyNoMounts('mkfs.ext4');

/** A volume on a small disk, with data in it, and something else that takes all the space there is. */
class FullDisk {
  readonly scene: KeyScene;
  readonly load: VolumeLoad;
  readonly #disk: string;

  private constructor(scene: KeyScene, disk: string) {
    this.scene = scene;
    this.#disk = disk;
    const random = seededRandom(testSeed('rotation on a full disk'));
    this.load = new VolumeLoad({ volume: 'v', blocks: LOAD_BLOCKS, random });
  }

  static async make(): Promise<FullDisk> {
    const disk = await loopFilesystem('ext4', DISK_BYTES);
    return new FullDisk(await KeyScene.start(CONFIG, join(disk, 'data')), disk);
  }

  async fill(daemon: DaemonProcess, ...how: string[]): Promise<void> {
    await daemon.ok('volume', 'create', 'v', '--size', String(SIZE_BYTES), ...how);
    await this.load.attach(daemon);
    await this.load.goOn();
    await this.load.detach();
    const client = await RawClient.serving(daemon.ready.listen[0], 'v');
    for (let at = FILL_FROM; at < SIZE_BYTES; at += MIB)
      expect(await client.writeAt(at, Buffer.alloc(MIB, at / MIB))).toBe(0);
    expect((await client.call(Command.FLUSH, 0, 0)).error).toBe(0);
    await client.close();
  }

  /** Nothing is left; what was freed meanwhile is taken too. */
  take(): void {
    takeSpace(this.#filler);
    expect(freeBytes(this.#disk)).toBeLessThan(MIB);
  }

  /** Begins on a full disk, and takes every byte that becomes free while the command runs. */
  async takeWhile(begin: () => Promise<RunResult>): Promise<RunResult> {
    this.take();
    let over = false;
    const ended = begin().finally(() => {
      over = true;
    });
    ended.catch(() => undefined); // Told by what is returned.
    while (!over) {
      await sleep(TAKE_MS);
      // In turns: the daemon's key service is in this process too.
      await takeSpaceInTurns(this.#filler);
    }
    return ended;
  }

  giveBack(): void {
    rmSync(this.#filler);
  }

  get #filler(): string {
    return join(this.#disk, 'filler');
  }

  /** Everything reads as it was written, and what needs no space works. */
  async verify(daemon: DaemonProcess): Promise<void> {
    expect((await volumeInfo(daemon)).state).toBe('serving');
    await this.verifyReads(daemon);
    const client = await RawClient.serving(daemon.ready.listen[0], 'v');
    for (const command of [Command.TRIM, Command.FLUSH])
      expect((await client.call(command, 0, command === Command.TRIM ? BLOCK : 0)).error).toBe(0);
    this.load.history.settle(0, 0);
    await client.close();
  }

  async verifyReads(daemon: DaemonProcess): Promise<void> {
    await this.load.verify(daemon);
    const client = await RawClient.serving(daemon.ready.listen[0], 'v');
    for (let at = FILL_FROM; at < SIZE_BYTES; at += MIB) {
      const { error, data } = await client.readAt(at, MIB);
      expect([at, error, data.equals(Buffer.alloc(MIB, at / MIB))]).toEqual([at, 0, true]);
    }
    await client.close();
  }

  /**
   * A rewriting that somebody else left no room: killed and started again the volume reads at least, and with room it
   * goes on, or is asked for again, and ends.
   */
  async killAndEnd(daemon: DaemonProcess, kind: 'reencrypt' | 'encrypt', ...again: string[]) {
    await daemon.signal('SIGKILL');
    const next = await this.scene.daemon();
    const { state, reason } = await volumeInfo(next);
    if (state !== 'serving') expect([state, reason]).toEqual(['failed', expect.stringMatching(NO_ROOM)]);
    await this.verifyReads(next);
    this.giveBack();
    await next.ok('volume', 'start', 'v');
    if (readSuperblock(this.scene.volumePath).rewriting)
      // An attempt that found no room is repeated 5 seconds later, then 10 and 20.
      await until('it goes on', async () => (await lastJob(next, kind)) !== undefined, {
        deadlineMs: 60_000,
      });
    await until('it ends', async () => (await lastJob(next, kind))?.state !== 'running');
    const { suite, rewriting, plain, deks } = readSuperblock(this.scene.volumePath);
    if (suite === 0 || rewriting || plain || deks.length > 1) await next.ok(...again);
    return next;
  }
}

/** It worked, or says that there is no room. */
function expectDoneOrFull({ code, stderr }: RunResult): void {
  if (code !== 0) expect([code, stderr]).toEqual([1, expect.stringMatching(NO_ROOM)]);
}

describe.skipIf(skipped !== undefined)(
  `on a full disk${skipped === undefined ? '' : ` (${skipped})`}`,
  () => {
    it('key set, rewrap and rotate work and survive a kill; re-encryption without any room loses nothing', {
      timeout: 180_000,
    }, async () => {
      const full = await FullDisk.make();
      const { scene, load } = full;
      const uris = [scene.kms.createKey(), scene.kms.createKey()].map(({ arn }) => `awskms:///${arn}`);
      let daemon = await scene.daemon();
      await full.fill(daemon, '--key', 'local:a');
      for (const args of [
        ['key', 'set', 'v', uris[0]],
        ['key', 'rewrap', 'v'],
        ['key', 'set', 'v', uris[1]],
        ['key', 'rotate', 'v'],
        ['key', 'rewrap', 'v'],
      ]) {
        full.take();
        await daemon.ok(...args);
      }
      const expectKeys = async (): Promise<void> => {
        expect(await keyStatus(daemon)).toMatchObject({
          ...{ keyUri: uris[1], state: 'valid', rotation: null },
          deks: [
            { id: 1, state: 'retired', exposed: true },
            { id: 2, state: 'active', exposed: false },
          ],
        });
      };
      await expectKeys();
      full.take();
      await full.verify(daemon);
      await daemon.signal('SIGKILL');
      full.take();
      daemon = await scene.daemon();
      await expectKeys();
      await full.verify(daemon);

      const rotating = () => daemon.run(['key', 'rotate', 'v', '--reencrypt']);
      expectDoneOrFull(await full.takeWhile(rotating));
      await full.verifyReads(daemon);
      daemon = await full.killAndEnd(daemon, 'reencrypt', 'key', 'rotate', 'v', '--reencrypt');
      await load.attach(daemon);
      await load.goOn();
      await load.detach();
      await full.verify(daemon);
      expect(readSuperblock(scene.volumePath)).toMatchObject({
        rewriting: false,
        deks: [{ state: 'active' }],
      });
      await daemon.ok('volume', 'verify', 'v');
    });

    it('re-encryption works where nobody takes the room that it makes', { timeout: 180_000 }, async () => {
      const full = await FullDisk.make();
      const daemon = await full.scene.daemon();
      await full.fill(daemon, '--key', 'local:a');
      full.take();
      await daemon.ok('key', 'rotate', 'v', '--reencrypt');
      expect(readSuperblock(full.scene.volumePath)).toMatchObject({ rewriting: false, deks: [{ id: 2 }] });
      await full.verify(daemon);
      await daemon.ok('volume', 'verify', 'v');
    });

    it('volume encrypt works, or says that there is no room and leaves the volume as good as it was', {
      timeout: 180_000,
    }, async () => {
      const full = await FullDisk.make();
      const { scene, load } = full;
      const uri = `awskms:///${scene.kms.createKey().arn}`;
      let daemon = await scene.daemon();
      await full.fill(daemon, '--cipher', 'none');
      const encrypting = () => daemon.run(['volume', 'encrypt', 'v', '--key', uri]);
      expectDoneOrFull(await full.takeWhile(encrypting));
      await full.verifyReads(daemon);
      daemon = await full.killAndEnd(daemon, 'encrypt', 'volume', 'encrypt', 'v', '--key', uri);
      await load.attach(daemon);
      await load.goOn();
      await load.detach();
      await full.verify(daemon);
      expect(readSuperblock(scene.volumePath)).toMatchObject({ suite: 2, rewriting: false, plain: false });
      await daemon.ok('volume', 'verify', 'v');
    });
  },
);
