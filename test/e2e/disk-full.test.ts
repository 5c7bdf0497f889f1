/** A data directory on a small disk that fills up: the volume's own data, or somebody else's file. */
import { appendFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { VolumeInfo } from '../../src/admin/schemas.js';
import { Command, Errno } from '../../src/nbd/wire/constants.js';
import { DaemonProcess } from '../support/daemon-process.js';
import { History } from '../support/history.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import {
  freeBytes,
  loopFilesystem,
  SMALL_DISK_CONFIG,
  takeSpace,
  whyNoMounts,
} from '../support/loop-filesystem.js';
import { content, versionOf } from '../support/nbd-traffic.js';
import { PipelinedClient } from '../support/pipelined-client.js';
import { BLOCK, seededRandom } from '../support/volume-harness.js';

const MIB = 2 ** 20;
const DISK_BYTES = 128 * MIB;
const VOLUME_BYTES = 256 * MIB;
const BLOCKS = VOLUME_BYTES / BLOCK;
const STEP_BLOCKS = 64;
const DEPTH = 4;
const READ_BLOCKS = 1024;
/** No request may hang because the disk is full. */
const ANSWER_MS_MAX = 20_000;
const SEED = Number(process.env.SEALBD_SEED ?? Date.now() % 1_000_000);
const skipped = whyNoMounts('mkfs.ext4');

/** A volume, what its client knows about it, and requests that must be answered. */
class Subject {
  readonly history = new History(BLOCKS);
  readonly name: string;
  #client: PipelinedClient | undefined;
  #version = 0;

  constructor(name: string) {
    this.name = name;
  }

  async attach(daemon: DaemonProcess): Promise<void> {
    await this.#client?.close();
    this.#client = await PipelinedClient.connect(daemon.ready.listen[0], this.name);
  }

  async detach(): Promise<void> {
    await this.#client?.close();
    this.#client = undefined;
  }

  async #call(type: number, lba: number, blocks: number, payload?: Uint8Array) {
    if (this.#client === undefined) throw new Error('not attached');
    const options = payload === undefined ? {} : { payload };
    const isRead = type === Command.READ;
    const answer = this.#client.call(type, lba * BLOCK, blocks * BLOCK, options, isRead);
    const late = new AbortController();
    const timeout = sleep(ANSWER_MS_MAX, undefined, { signal: late.signal }).then(
      () => Promise.reject(new Error(`command ${type} at block ${lba} is not answered`)),
      () => undefined,
    );
    const reply = await Promise.race([answer, timeout]);
    late.abort();
    if (reply === undefined) throw new Error('no reply');
    return reply;
  }

  /** Returns the error of the answer. */
  async write(lba: number, blocks: number): Promise<number> {
    const version = ++this.#version;
    const changes = Array.from({ length: blocks }, (_, i) => this.history.issue(lba + i, version, false));
    const payload = Buffer.concat(changes.map((_, i) => content(lba + i, version)));
    const { error } = await this.#call(Command.WRITE, lba, blocks, payload);
    if (error === 0) for (const change of changes) change.acknowledged = true;
    return error;
  }

  /** Writes forward from `lba` to `end` until an error comes; returns that error, 0 where none came. */
  async fill(lba: number, end: number): Promise<{ error: number; writtenBlocks: number }> {
    let next = lba;
    let error = 0;
    let writtenBlocks = 0;
    const work = async (): Promise<void> => {
      while (next < end && error === 0) {
        const at = next;
        next += STEP_BLOCKS;
        const failed = await this.write(at, Math.min(STEP_BLOCKS, end - at));
        if (failed === 0) writtenBlocks += STEP_BLOCKS;
        else error = failed;
      }
    };
    await Promise.all(Array.from({ length: DEPTH }, work));
    return { error, writtenBlocks };
  }

  async trim(lba: number, blocks: number): Promise<void> {
    const changes = Array.from({ length: blocks }, (_, i) => this.history.issue(lba + i, 0, false));
    const { error } = await this.#call(Command.TRIM, lba, blocks);
    expect(error, `TRIM of block ${lba}`).toBe(0);
    for (const change of changes) change.acknowledged = true;
  }

  async flush(): Promise<void> {
    const done = this.history.flushing();
    const { error } = await this.#call(Command.FLUSH, 0, 0);
    expect(error, 'FLUSH').toBe(0);
    done();
  }

  /** Every block has a version that it may have, whole. */
  async check(): Promise<void> {
    for (let from = 0; from < BLOCKS; from += READ_BLOCKS) {
      const { error, data } = await this.#call(Command.READ, from, READ_BLOCKS);
      expect(error, `READ of block ${from}`).toBe(0);
      for (let i = 0; i < READ_BLOCKS; i++) {
        const block = data.subarray(i * BLOCK, (i + 1) * BLOCK);
        const version = versionOf(block);
        const allowed = this.history.allowed(from + i);
        if (!allowed.includes(version))
          throw new Error(`block ${from + i}: ${version}, not one of ${allowed}`);
        if (Buffer.compare(block, content(from + i, version)) !== 0)
          throw new Error(`block ${from + i} is torn`);
        this.history.settle(from + i, version);
      }
    }
  }
}

async function diskWith(...names: string[]): Promise<{ disk: string; start(): Promise<DaemonProcess> }> {
  const disk = await loopFilesystem('ext4', DISK_BYTES);
  const config = join(temporaryDirectory(), 'sealbd.toml');
  writeFileSync(config, SMALL_DISK_CONFIG);
  const start = (): Promise<DaemonProcess> => DaemonProcess.start(join(disk, 'data'), ['--config', config]);
  const daemon = await start();
  for (const name of names) await daemon.ok('volume', 'create', name, '--size', String(VOLUME_BYTES));
  expect((await daemon.stop()).code).toBe(0);
  return { disk, start };
}

function expectFull(disk: string): void {
  expect(() => appendFileSync(join(disk, 'probe'), Buffer.alloc(64 * 1024))).toThrow('ENOSPC');
  rmSync(join(disk, 'probe'), { force: true });
}

async function verifyClean(daemon: DaemonProcess, name: string): Promise<void> {
  const { code, stdout, stderr } = await daemon.run(['volume', 'verify', name]);
  expect(code, `${stdout}\n${stderr}`).toBe(0);
}

const state = async (daemon: DaemonProcess, name: string): Promise<string> =>
  (await daemon.json<VolumeInfo>(['volume', 'info', name])).state;

describe.skipIf(skipped !== undefined)(
  `on a full disk${skipped === undefined ? '' : ` (${skipped})`}`,
  () => {
    it('a volume that would have no reserve is not made, and leaves nothing behind', {
      timeout: 60_000,
    }, async () => {
      const { disk, start } = await diskWith('v');
      const daemon = await start();
      const filler = join(disk, 'filler');
      takeSpace(filler);
      const { code, stderr } = await daemon.run(['volume', 'create', 'x', '--size', '10G']);
      expect(code).toBe(1);
      expect(stderr).toMatch(/no room|ENOSPC/);
      const made = await daemon.json<VolumeInfo[]>(['volume', 'list']);
      expect(made.map((volume) => volume.name)).toEqual(['v']);
      rmSync(filler);
      await daemon.ok('volume', 'create', 'x', '--size', '10G');
    });

    it('a volume that filled it says ENOSPC, keeps what it acknowledged, and writes again after TRIM', {
      timeout: 180_000,
    }, async () => {
      const { start } = await diskWith('v');
      const daemon = await start();
      const subject = new Subject('v');
      await subject.attach(daemon);
      const first = await subject.fill(0, BLOCKS);
      expect(first.error).toBe(Errno.ENOSPC);
      expect(first.writtenBlocks * BLOCK).toBeGreaterThan(DISK_BYTES / 2);
      for (let i = 0; i < 10; i++)
        expect(await subject.write(i * STEP_BLOCKS, STEP_BLOCKS)).toBe(Errno.ENOSPC);
      await subject.flush();
      await subject.check();
      expect(await state(daemon, 'v')).toBe('serving');

      const half = Math.floor(first.writtenBlocks / 2 / STEP_BLOCKS) * STEP_BLOCKS;
      // Again and again: nothing of the room that comes back may get lost.
      for (let cycle = 0; cycle < 3; cycle++) {
        await subject.trim(0, half);
        await subject.flush();
        expect(await subject.fill(0, Math.floor(half * 0.75))).toMatchObject({ error: 0 });
      }
      await subject.check();

      // Half of every piece of the rest: no segment is empty, so compaction must make the room.
      for (let lba = half; lba < first.writtenBlocks; lba += 16) await subject.trim(lba, 8);
      await subject.flush();
      expect(await subject.fill(0, Math.floor(half * 0.4))).toMatchObject({ error: 0 });
      await subject.flush();
      await subject.check();
      await verifyClean(daemon, 'v');
    });

    it('TRIM and FLUSH never fail while clients go on writing, and room is found once there is some', {
      timeout: 180_000,
    }, async () => {
      const { start } = await diskWith('v');
      const daemon = await start();
      const subject = new Subject('v');
      await subject.attach(daemon);
      const used = (await subject.fill(0, BLOCKS)).writtenBlocks;
      const random = seededRandom(SEED);
      const int = (max: number): number => Math.floor(random() * max);
      let refused = 0;
      for (let i = 0; i < 1500; i++) {
        const error = await subject.write(int(used - 16), 1 + int(16));
        expect([0, Errno.ENOSPC]).toContain(error);
        if (error !== 0) refused++;
        if (i % 10 === 0) await subject.trim(int(used - 32), 1 + int(32));
        if (i % 25 === 0) await subject.flush();
      }
      expect(refused).toBeGreaterThan(0);
      await subject.check();
      for (let lba = 0; lba + 16 < used; lba += 16) await subject.trim(lba, 6);
      await subject.flush();
      expect(await subject.fill(0, Math.floor(used * 0.6)), `SEALBD_SEED=${SEED}`).toMatchObject({
        error: 0,
      });
      await subject.flush();
      await subject.check();
      await verifyClean(daemon, 'v');
    });

    it('a daemon that is killed there comes back with every flushed block', {
      timeout: 180_000,
    }, async () => {
      const { start } = await diskWith('v');
      const subject = new Subject('v');
      for (let round = 0; round < 3; round++) {
        const daemon = await start();
        await subject.attach(daemon);
        if (round > 0) await subject.check();
        const { error } = await subject.fill(0, BLOCKS);
        expect(error).toBe(Errno.ENOSPC);
        await subject.flush();
        await subject.trim(round * 1000, 1000);
        await subject.flush();
        expect((await subject.fill(round * 3000, BLOCKS)).error).toBe(Errno.ENOSPC);
        await daemon.signal('SIGKILL');
      }
      const daemon = await start();
      await subject.attach(daemon);
      await subject.check();
      await verifyClean(daemon, 'v');
      expect(await state(daemon, 'v')).toBe('serving');
    });

    it('that another file filled, everything but writing works, and writing does once there is room', {
      timeout: 180_000,
    }, async () => {
      const { disk, start } = await diskWith('v', 'w');
      const filler = join(disk, 'filler');
      let daemon = await start();
      const subject = new Subject('v');
      const other = new Subject('w');
      for (const each of [subject, other]) {
        await each.attach(daemon);
        expect(await each.fill(0, 4096)).toMatchObject({ error: 0 });
        await each.flush();
      }
      takeSpace(filler);
      expect((await subject.fill(0, BLOCKS)).error).toBe(Errno.ENOSPC);
      takeSpace(filler);
      expectFull(disk);
      for (let i = 0; i < 20; i++) {
        await subject.trim(i * 50, 20);
        await subject.flush();
        takeSpace(filler);
      }
      await subject.check();

      await subject.detach();
      await daemon.ok('volume', 'stop', 'v');
      takeSpace(filler);
      expect(await state(daemon, 'v')).toBe('stopped');
      await daemon.ok('volume', 'start', 'v');
      await subject.attach(daemon);
      await subject.check();
      await daemon.signal('SIGKILL');
      takeSpace(filler);

      daemon = await start();
      for (const each of [subject, other]) {
        expect(await state(daemon, each.name)).toBe('serving');
        await each.attach(daemon);
        await each.check();
        await each.trim(2000, 100);
        await each.flush();
      }
      expect((await daemon.stop()).code).toBe(0);
      takeSpace(filler);

      daemon = await start();
      await daemon.ok('volume', 'delete', 'w', '--yes');
      expect(freeBytes(disk)).toBeGreaterThan(8 * MIB);
      rmSync(filler);
      await subject.attach(daemon);
      await subject.check();
      expect(await subject.fill(0, 8192)).toMatchObject({ error: 0 });
      await subject.flush();
      await subject.check();
      await verifyClean(daemon, 'v');
    });
  },
);
