/** A volume whose data is to be rewritten, a load on it, and the states that it is in before and after. */
import { expect } from 'vitest';
import type { JobInfo } from '../../src/admin/schemas.js';
import type { DaemonProcess } from './daemon-process.js';
import { adminOf, KeyScene, keyStatus } from './key-scene.js';
import type { FakeKey } from './kms-fake/keys.js';
import { qemuIo } from './nbd-io.js';
import { testSeed } from './seeded-random.js';
import { type ParsedSuperblock, readSuperblock } from './superblock-parser.js';
import { BLOCK, seededRandom } from './volume-harness.js';
import { VolumeLoad } from './volume-load.js';

const MIB = 2 ** 20;
const FILL_BYTES = 48 * MIB;
const LOAD_BLOCKS = 2048;
const SIZE_BYTES = FILL_BYTES + LOAD_BLOCKS * BLOCK;
const CONFIG = `[tuning]
segment_slots = 512

[watchdog]
poll_interval = "100ms"
confirm_after = "0s"
`;

export type Kind = Extract<JobInfo['kind'], 'reencrypt' | 'encrypt'>;

/** A volume with something to rewrite in it, and a load on it. */
export class RewriteSubject {
  readonly scene: KeyScene;
  readonly kind: Kind;
  readonly key: FakeKey;
  readonly load: VolumeLoad;
  daemon: DaemonProcess;

  private constructor(scene: KeyScene, daemon: DaemonProcess, kind: Kind, key: FakeKey) {
    this.scene = scene;
    this.daemon = daemon;
    this.kind = kind;
    this.key = key;
    this.load = new VolumeLoad({
      ...{ volume: 'v', firstBlock: FILL_BYTES / BLOCK, blocks: LOAD_BLOCKS },
      random: seededRandom(testSeed(`rewriting, ${kind}`)),
    });
  }

  static async start(kind: Kind): Promise<RewriteSubject> {
    const scene = await KeyScene.start(CONFIG);
    const key = scene.kms.createKey();
    const daemon = await scene.daemon();
    const subject = new RewriteSubject(scene, daemon, kind, key);
    const how = kind === 'encrypt' ? ['--cipher', 'none'] : ['--key', subject.keyUri];
    await daemon.ok('volume', 'create', 'v', '--size', String(SIZE_BYTES), ...how);
    expect((await qemuIo(daemon.uri('v'), `write -P 0x5a 0 ${FILL_BYTES}`, 'flush')).code).toBe(0);
    await subject.load.attach(daemon);
    await subject.load.goOn();
    return subject;
  }

  get keyUri(): string {
    return `awskms:///${this.key.arn}`;
  }

  get superblock(): ParsedSuperblock {
    return readSuperblock(this.scene.volumePath);
  }

  get newest(): number {
    return Math.max(...this.superblock.deks.map(({ id }) => id));
  }

  async begin(): Promise<JobInfo | null> {
    const admin = adminOf(this.daemon);
    if (this.kind === 'reencrypt') return (await admin.rotateKey('v', true)).job;
    return (await admin.encryptVolume('v', this.keyUri)).job;
  }

  /** As it was written: the load's part, and the rest. */
  async verify(): Promise<void> {
    await this.load.verify(this.daemon);
    const { code, output } = await qemuIo(this.daemon.uri('v'), `read -P 0x5a 0 ${FILL_BYTES}`);
    expect([code, output.includes('failed')]).toEqual([0, false]);
  }

  /** Under one DEK, with nothing left to do. */
  async expectRewritten(dekId: number): Promise<void> {
    expect(await keyStatus(this.daemon)).toMatchObject({
      ...{ state: 'valid', rotation: null, deks: [{ id: dekId, state: 'active', exposed: false }] },
    });
    expect(this.superblock).toMatchObject({ suite: 2, rewriting: false, plain: false, activeDek: dekId });
    await this.daemon.ok('volume', 'verify', 'v');
  }
}
