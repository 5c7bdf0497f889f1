/** Every way in which a key is taken away ends alike: the volume stops, names the way, and keeps nothing in memory. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { DaemonProcess } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { KeyNeedles } from '../support/key-needles.js';
import { adminOf, KeyScene, keyStatus, metricsOf, untilState, volumeInfo } from '../support/key-scene.js';
import type { AccessKey } from '../support/kms-fake/access-keys.js';
import type { FakeKey } from '../support/kms-fake/keys.js';
import type { KmsFake } from '../support/kms-fake/kms-fake.js';
import { scanProcess } from '../support/memory-scan.js';
import { qemuIo } from '../support/nbd-io.js';
import { hasProgram } from '../support/programs.js';
import { testSeed } from '../support/seeded-random.js';
import { until } from '../support/until.js';
import { BLOCK, seededRandom } from '../support/volume-harness.js';
import { VolumeLoad } from '../support/volume-load.js';

const BLOCKS = 2048;
const INTERVAL_MS = 500;
const CONFIRM_MS = 300;
/** One interval with its jitter, the confirmation, and what a slow machine takes to do it all. */
const STOPPED_WITHIN_MS = 1.1 * INTERVAL_MS + CONFIRM_MS + 12_000;
const CONFIG = `[tuning]
segment_slots = 256

[watchdog]
poll_interval = "${INTERVAL_MS}ms"
confirm_after = "${CONFIRM_MS}ms"
`;

/** The daemon's access key lies in a file, as it does where something renews it. */
class Credentials {
  readonly #kms: KmsFake;
  readonly #path = join(temporaryDirectory(), 'credentials');
  #current: AccessKey | undefined;

  constructor(kms: KmsFake) {
    this.#kms = kms;
    this.renew();
  }

  get environment(): Record<string, string> {
    const none = { AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: '', AWS_SESSION_TOKEN: '' };
    return { ...this.#kms.environment(), ...none, AWS_SHARED_CREDENTIALS_FILE: this.#path };
  }

  renew(): void {
    this.#current = this.#kms.addAccessKey({ session: true });
    const { accessKeyId, secretAccessKey, sessionToken } = this.#current;
    const lines = [
      '[default]',
      `aws_access_key_id = ${accessKeyId}`,
      `aws_secret_access_key = ${secretAccessKey}`,
      `aws_session_token = ${sessionToken}`,
    ];
    writeFileSync(this.#path, `${lines.join('\n')}\n`);
  }

  expire(): void {
    this.#kms.expireAccessKey(this.#current!.accessKeyId);
  }
}

interface Subject {
  readonly kms: KmsFake;
  readonly key: FakeKey;
  readonly credentials: Credentials;
}

interface Ending {
  readonly what: string;
  take(subject: Subject): void;
  /** What the reason says: AWS's name of it, and words. */
  readonly named: RegExp;
  /** Where it can be given back. */
  giveBack?(subject: Subject): void;
}

const ENDINGS: readonly Ending[] = [
  {
    what: 'the grant is withdrawn',
    take: ({ kms, key }) => kms.deny(['kms:Decrypt'], { key }),
    named: /AccessDeniedException.*no permission.*not authorized to perform: kms:Decrypt/,
    giveBack: ({ kms, key }) => kms.allow(['kms:Decrypt'], { key }),
  },
  {
    what: 'every grant is withdrawn, that to describe the key too',
    take: ({ kms, key }) => kms.deny(['kms:*'], { key }),
    named: /AccessDeniedException.*no permission/,
    giveBack: ({ kms, key }) => kms.allow(['kms:Decrypt', 'kms:DescribeKey'], { key }),
  },
  {
    what: 'the key is pending deletion',
    take: ({ kms, key }) => kms.setState(key, 'PendingDeletion'),
    named: /KMSInvalidStateException.*waits to be deleted, on 20\d\d-/,
    giveBack: ({ kms, key }) => kms.setState(key, 'Enabled'),
  },
  {
    what: 'the key is pending deletion, and AWS calls that disabled',
    take: ({ kms, key }) => {
      kms.pendingDeletionError = 'DisabledException';
      kms.setState(key, 'PendingDeletion');
    },
    named: /DisabledException.*waits to be deleted, on 20\d\d-/,
    giveBack: ({ kms, key }) => kms.setState(key, 'Enabled'),
  },
  {
    what: 'the key is deleted',
    take: ({ kms, key }) => kms.deleteKey(key),
    named: /NotFoundException.*no such key/,
  },
  {
    what: "the daemon's credentials have expired",
    take: ({ credentials }) => credentials.expire(),
    named: /ExpiredTokenException.*credentials have expired/,
    giveBack: ({ credentials }) => credentials.renew(),
  },
];

const LOG_ERROR = 50;

/** Status, log, audit log and metrics all say why. */
async function expectNamed(daemon: DaemonProcess, scene: KeyScene, named: RegExp): Promise<void> {
  const reason = expect.stringMatching(named);
  expect(await keyStatus(daemon)).toMatchObject({ state: 'invalid', reason });
  expect(await volumeInfo(daemon)).toMatchObject({ state: 'key-invalid', reason });
  const [problem] = (await metricsOf(daemon)).match(/^sealbd_key_problem\{.*$/m) ?? [''];
  expect(problem).toMatch(named);
  const told = daemon.log().filter((line) => line.volume === 'v' && line.level >= LOG_ERROR);
  expect(told.map((line) => line.msg)).toContain('stopped; its keys are wiped');
  for (const line of told) expect(line).toMatchObject({ reason });
  const events = scene.audit().filter(({ by }) => (by as { kind: string }).kind === 'watchdog');
  expect(events).toEqual([
    expect.objectContaining({ event: 'key-state', from: 'valid', to: 'invalid', reason }),
    expect.objectContaining({ event: 'stop', reason }),
  ]);
}

describe.skipIf(!hasProgram('qemu-io'))('the volume stops and wipes its keys when', () => {
  it.each(ENDINGS)('$what', async ({ what, take, named, giveBack }) => {
    const scene = await KeyScene.start(CONFIG);
    const { kms, volumePath } = scene;
    const key = kms.createKey();
    const credentials = new Credentials(kms);
    const subject: Subject = { kms, key, credentials };
    const daemon = await scene.daemon([], credentials.environment);
    const size = String(BLOCKS * BLOCK);
    await daemon.ok('volume', 'create', 'v', '--size', size, '--key', `awskms:///${key.arn}`);
    const random = seededRandom(testSeed(what));
    const load = new VolumeLoad({ volume: 'v', blocks: BLOCKS, random });
    await load.attach(daemon);
    await load.goOn();
    const needles = new KeyNeedles();
    needles.addDeksOf(kms, volumePath);
    needles.addSegmentsOf(volumePath);

    take(subject);
    const taken = Date.now();
    expect(await load.cutOff()).toMatch(/^closed$|error 108/);
    expect(Date.now() - taken).toBeLessThan(STOPPED_WITHIN_MS);
    await untilState(daemon, 'key-invalid');
    load.settleAcknowledged();
    await expectNamed(daemon, scene, named);
    expect((await qemuIo(daemon.uri('v'), 'read 0 4k')).code).not.toBe(0);
    expect((await daemon.run(['volume', 'start', 'v'])).code).toBe(4);
    needles.addSegmentsOf(volumePath);
    expect(scanProcess(daemon.pid, needles.all)).toEqual([]);

    if (giveBack === undefined) {
      expect((await daemon.run(['volume', 'start', 'v'])).code).toBe(4);
      return;
    }
    giveBack(subject);
    await until('the key is valid', async () => {
      return (await adminOf(daemon).keyStatus('v'))[0].state === 'valid';
    });
    await daemon.ok('volume', 'start', 'v');
    await load.verify(daemon);
    // The scan finds what is there.
    expect(scanProcess(daemon.pid, needles.deks).map(({ name }) => name)).toContain('DEK 1, raw');
  });
});
