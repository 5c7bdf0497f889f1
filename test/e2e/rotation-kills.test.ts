/**
 * `kill -9` of real daemons at random moments of re-encryptions and of conversions of `none` volumes, with clients that
 * write all the while: the volume opens each time with every flushed block, what was begun goes on by itself, and ends in
 * the right state. Replay with SEALBD_TEST_SEED; the long run sets SEALBD_ROTATION_KILLS=100.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { JobInfo } from '../../src/admin/schemas.js';
import { messageOf } from '../../src/base/errors.js';
import type { DaemonProcess } from '../support/daemon-process.js';
import { adminOf, KeyScene, keyStatus, lastJob, volumeInfo } from '../support/key-scene.js';
import { testSeed } from '../support/seeded-random.js';
import { readSuperblock } from '../support/superblock-parser.js';
import { until } from '../support/until.js';
import { BLOCK, seededRandom } from '../support/volume-harness.js';
import { VolumeLoad } from '../support/volume-load.js';

/** Of each operation. */
const KILLS = Number(process.env.SEALBD_ROTATION_KILLS ?? 4);
const KILL_TIMEOUT_MS = 60_000;
const BLOCKS = 6144;
/** The steps around the superblock and the first checkpoint are over within this time. */
const BEGINNING_MS = 150;
const LOG_ERROR = 50;
/** Of the log of the last daemon, where something fails. */
const LOG_CHARACTERS = 4000;

const CONFIG = `[tuning]
segment_slots = 128
checkpoint_after = "8M"
checkpoint_interval = "1s"
spares = 2
reserve = 1
`;

interface Operation {
  readonly kind: JobInfo['kind'];
  readonly cipher: string;
  begin(daemon: DaemonProcess, keyUri: string): Promise<unknown>;
}

const OPERATIONS: readonly Operation[] = [
  { kind: 'reencrypt', cipher: 'aes-256-gcm', begin: (daemon) => adminOf(daemon).rotateKey('v', true) },
  { kind: 'encrypt', cipher: 'none', begin: (daemon, uri) => adminOf(daemon).encryptVolume('v', uri) },
];

class Subject {
  kills = 0;
  /** What the superblock said when the daemon was killed, and how often. */
  readonly moments = new Map<string, number>();
  readonly #scene: KeyScene;
  readonly #operation: Operation;
  readonly #keyUri: string;
  readonly #random: () => number;
  #daemon: DaemonProcess;
  #load: VolumeLoad;

  private constructor(
    scene: KeyScene,
    daemon: DaemonProcess,
    operation: Operation,
    keyUri: string,
    random: () => number,
  ) {
    this.#scene = scene;
    this.#daemon = daemon;
    this.#operation = operation;
    this.#keyUri = keyUri;
    this.#random = random;
    this.#load = this.#newLoad();
  }

  static async start(operation: Operation, random: () => number): Promise<Subject> {
    const scene = await KeyScene.start(CONFIG);
    const keyUri = `awskms:///${scene.kms.createKey().arn}`;
    return new Subject(scene, await scene.daemon(), operation, keyUri, random);
  }

  get #superblock() {
    return readSuperblock(this.#scene.volumePath);
  }

  get logEnd(): string {
    return this.#daemon.logText.slice(-LOG_CHARACTERS);
  }

  #newLoad(): VolumeLoad {
    return new VolumeLoad({ volume: 'v', blocks: BLOCKS, random: this.#random });
  }

  /** Something to rewrite; the load is attached. */
  async prepare(): Promise<void> {
    const { cipher } = this.#operation;
    const exists = this.kills > 0;
    if (cipher === 'none' && exists) await this.#daemon.ok('volume', 'delete', 'v', '--yes');
    if (cipher === 'none' || !exists) {
      const key = cipher === 'none' ? [] : ['--key', this.#keyUri];
      const size = String(BLOCKS * BLOCK);
      await this.#daemon.ok('volume', 'create', 'v', '--size', size, '--cipher', cipher, ...key);
      this.#load = this.#newLoad();
    }
    await this.#load.attach(this.#daemon);
    await this.#load.goOn(800);
  }

  /** Begins the operation, kills the daemon, perhaps kills what goes on, and waits for the end of it all. */
  async round(): Promise<void> {
    const newest = Math.max(0, ...this.#superblock.deks.map(({ id }) => id));
    const begin = () => this.#operation.begin(this.#daemon, this.#keyUri);
    const before = await lastJob(this.#daemon, this.#operation.kind);
    await this.#killAndRestart(begin(), before?.id);
    for (let more = Math.floor(this.#random() * 3); more > 0 && this.#superblock.rewriting; more--) {
      await this.#load.attach(this.#daemon);
      await this.#killAndRestart();
    }
    await this.#load.attach(this.#daemon);
    // A kill before the first step: it never happened.
    if (!this.#superblock.deks.some(({ id }) => id > newest)) await begin();
    await this.#untilDone(newest + 1);
    await this.#load.goOn();
    await this.#load.detach();
    await this.#load.verify(this.#daemon);
    await this.#daemon.ok('volume', 'verify', 'v');
    expect(this.#daemon.log().filter(({ level }) => level >= LOG_ERROR)).toEqual([]);
  }

  /** Under one DEK, with nothing left to do. */
  async #untilDone(dekId: number): Promise<void> {
    await until('the rewriting is over', async () => {
      const job = await lastJob(this.#daemon, this.#operation.kind);
      if (job?.state === 'failed' || job?.state === 'cancelled')
        throw new Error(`the job is ${job.state}: ${job.error?.message}`);
      return job?.state !== 'running' && !this.#superblock.rewriting;
    });
    const { suite, plain, deks } = this.#superblock;
    expect({ suite, plain, deks: deks.map(({ id, state }) => [id, state]) }).toEqual({
      ...{ suite: 2, plain: false, deks: [[dekId, 'active']] },
    });
    expect(await keyStatus(this.#daemon)).toMatchObject({
      ...{ state: 'valid', keyUri: this.#keyUri, rotation: null, deks: [{ id: dekId, exposed: false }] },
    });
    expect(await volumeInfo(this.#daemon)).toMatchObject({ state: 'serving', cipher: 'aes-256-gcm' });
  }

  async #killAndRestart(begun?: Promise<unknown>, jobBefore?: string): Promise<void> {
    const answer = begun?.then(
      () => 'done',
      (error: unknown) => messageOf(error),
    );
    const generation = this.#superblock.generation;
    if (this.kills % 3 === 0) await this.#untilShare(this.#random(), jobBefore);
    else {
      const first = () => begun === undefined || this.#superblock.generation > generation;
      if (this.kills % 3 === 2) await until('the first step is done', first, { everyMs: 1 });
      await sleep(this.#random() * BEGINNING_MS);
    }
    await this.#daemon.signal('SIGKILL');
    // A command that lost its daemon says so; any other failure of it is one.
    expect((await answer) ?? 'done').toMatch(/^done$|^no daemon answers/);
    expect(await this.#load.cutOff()).toBe('closed');
    const { deks, rewriting } = this.#superblock;
    const moment = `${deks.map(({ state }) => state).join('+') || 'none'}${rewriting ? ', rewriting' : ''}`;
    this.moments.set(moment, (this.moments.get(moment) ?? 0) + 1);
    this.kills += 1;
    this.#daemon = await this.#scene.daemon();
    const goesOn = () => this.#daemon.log().some(({ msg }) => msg === 're-encryption goes on');
    if (rewriting) await until('it goes on by itself', goesOn);
    await this.#load.verify(this.#daemon);
  }

  /** Resolves when the rewriting has come so far, or does not run. */
  async #untilShare(share: number, jobBefore: string | undefined): Promise<void> {
    const reached = async (): Promise<boolean> => {
      const job = await lastJob(this.#daemon, this.#operation.kind);
      if (job === undefined || job.id === jobBefore) return false;
      return job.state !== 'running' || (job.totalBytes > 0 && job.doneBytes >= share * job.totalBytes);
    };
    await until('the rewriting comes so far', reached, { everyMs: 2 });
  }
}

it.each(OPERATIONS)(
  `kill -9 at any moment of $kind: it goes on and ends, over ${KILLS} kills`,
  {
    timeout: KILLS * KILL_TIMEOUT_MS,
  },
  async (operation) => {
    const seed = testSeed(`rotation kills, ${operation.kind}`);
    const subject = await Subject.start(operation, seededRandom(seed));
    while (subject.kills < KILLS) {
      try {
        await subject.prepare();
        await subject.round();
      } catch (error) {
        const where = `after ${subject.kills} kills, SEALBD_TEST_SEED=${seed}`;
        throw new Error(`${where}\n${subject.logEnd}`, { cause: error });
      }
    }
    console.log(Object.fromEntries(subject.moments));
    // Some of them hit it in the middle.
    expect([...subject.moments.keys()].some((moment) => moment.endsWith('rewriting'))).toBe(true);
  },
);
