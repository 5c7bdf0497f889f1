/** Outages at the edges: of one check, without a grace period, mixed with refusals, and at the daemon's start. */
import { describe, expect, it } from 'vitest';
import { KMS_ATTEMPTS_MAX } from '../../src/base/limits.js';
import { type DaemonProcess, sealbd } from '../support/daemon-process.js';
import { temporaryDirectory } from '../support/key-fixtures.js';
import { adminOf, KeyScene, untilState, volumeInfo } from '../support/key-scene.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { until } from '../support/until.js';

const BLOCK = 4096;
const CONFIG = '[watchdog]\npoll_interval = "300ms"\nconfirm_after = "3s"\n';
/** What never happens would have happened by then, many checks later. */
const CHECKS = 4;

async function withVolume(...flags: string[]) {
  const scene = await KeyScene.start(CONFIG);
  const key = scene.kms.createKey();
  const daemon = await scene.daemon(flags);
  await daemon.ok('volume', 'create', 'v', '--size', '1M', '--key', `awskms:///${key.arn}`);
  return { scene, kms: scene.kms, key, daemon };
}

const keyOf = async (daemon: DaemonProcess) => (await adminOf(daemon).status()).keys[0];

async function untilKey(daemon: DaemonProcess, state: string): Promise<void> {
  await until(`the key is ${state}`, async () => (await keyOf(daemon)).state === state);
}

/** Waits for so many more checks that found the key valid. */
async function validChecks(daemon: DaemonProcess, checks = CHECKS): Promise<void> {
  const seen = new Set<string | null>();
  await until(`${checks} checks`, async () => {
    const { state, lastCheck, reason } = await keyOf(daemon);
    expect([state, reason]).toEqual(['valid', null]);
    seen.add(lastCheck);
    return seen.size > checks;
  });
}

async function expectServing(daemon: DaemonProcess): Promise<void> {
  expect(await volumeInfo(daemon)).toMatchObject({ state: 'serving', reason: null });
  const client = await RawClient.serving(daemon.ready.listen[0], 'v');
  expect(await client.writeAt(0, Buffer.alloc(BLOCK, 1))).toBe(0);
  await client.close();
}

describe('one error in passing', () => {
  it('that a second attempt gets over is not even seen, without a grace period either', async () => {
    const { scene, kms, daemon } = await withVolume('--unreachable-grace', '0s');
    for (const kind of ['internal', 'throttling', 'reset', 'torn'] as const) {
      kms.inject(kind, { operations: ['Decrypt'], times: 1 });
      await until(`${kind} has hit`, () => kms.requests.some((request) => request.fault === kind));
      await validChecks(daemon, 2);
    }
    await expectServing(daemon);
    // What weakens this machine is told at the start, and is no matter of keys.
    expect(daemon.log().filter(({ level, weakness }) => level >= 40 && weakness === undefined)).toEqual([]);
    expect(scene.audit().filter(({ event }) => event === 'stop')).toEqual([]);
  });

  it('that fails a whole check is forgotten with the next one', async () => {
    const { kms, daemon } = await withVolume();
    kms.inject('internal', { operations: ['Decrypt'], times: KMS_ATTEMPTS_MAX });
    await until('it shows', () => daemon.log().some(({ answer }) => answer === 'unreachable'));
    await untilKey(daemon, 'valid');
    await validChecks(daemon);
    expect(await keyOf(daemon)).toMatchObject({ graceEndsAt: null });
    await expectServing(daemon);
    // Were it not forgotten, this one's countdown had begun back then.
    const second = Date.now();
    kms.inject('internal');
    await untilKey(daemon, 'unreachable');
    const { graceEndsAt } = await keyOf(daemon);
    expect(Date.parse(graceEndsAt!)).toBeGreaterThan(second + 24 * 3_600_000);
  });

  it('that refuses is not confirmed, and forgotten with the next check', async () => {
    const { kms, key, daemon } = await withVolume();
    kms.setState(key, 'Disabled');
    const refused = () => daemon.log().filter(({ answer }) => answer === 'refused');
    await until('it shows', () => refused().length > 0);
    expect(refused()[0]).toMatchObject({
      reason: expect.stringMatching(/to be confirmed.*DisabledException/),
    });
    kms.setState(key, 'Enabled');
    await until('it is valid', async () => (await keyOf(daemon)).reason === null);
    await validChecks(daemon);
    await expectServing(daemon);
    expect(refused()).toHaveLength(1);
  });
});

it('an outage in the middle of a refusal does not put the stop off', async () => {
  const { kms, key, daemon } = await withVolume();
  kms.setState(key, 'Disabled');
  await until('it is refused', () => daemon.log().some(({ answer }) => answer === 'refused'));
  kms.inject('internal', { operations: ['Decrypt'], times: KMS_ATTEMPTS_MAX });
  await untilState(daemon, 'key-invalid');
  expect(await volumeInfo(daemon)).toMatchObject({ reason: expect.stringContaining('DisabledException') });
});

it('without a grace period the first check without an answer stops the volume', async () => {
  const { kms, daemon } = await withVolume('--unreachable-grace', '0s');
  await validChecks(daemon);
  await kms.stop();
  await untilState(daemon, 'key-invalid');
  const unanswered = daemon.log().filter(({ answer }) => answer === 'unreachable');
  expect(unanswered).toHaveLength(1);
  expect(unanswered[0]).toMatchObject({
    reason: expect.stringContaining('not reachable for the grace period'),
  });
  await kms.start();
  await untilKey(daemon, 'valid');
  expect(await volumeInfo(daemon)).toMatchObject({ state: 'key-invalid' });
  await daemon.ok('volume', 'start', 'v');
  await expectServing(daemon);
});

describe('a daemon that starts while the key service', () => {
  it.each([
    ['refuses connections', 'down'],
    ['throttles', 'throttling'],
  ] as const)('%s waits, and opens the volume by itself when it is back', async (_what, how) => {
    const { scene, kms, daemon: before } = await withVolume();
    await expectServing(before);
    expect((await before.stop()).code).toBe(0);
    if (how === 'down') await kms.stop();
    else kms.inject(how);
    const daemon = await scene.daemon();
    expect(await volumeInfo(daemon)).toMatchObject({ state: 'key-invalid', reason: expect.any(String) });
    expect(await keyOf(daemon)).toMatchObject({ state: 'unreachable', graceEndsAt: null });
    // Asked for too early, it fails, and waits on.
    expect((await daemon.run(['volume', 'start', 'v'])).code).toBe(4);
    if (how === 'down') await kms.start();
    else kms.clearFaults();
    await untilState(daemon, 'serving');
    await validChecks(daemon, 2);
    await expectServing(daemon);
    expect(daemon.log().map(({ msg }) => msg)).toContain('serving again: its key came back');
    expect(scene.audit().at(-1)).toMatchObject({ event: 'start', by: { kind: 'watchdog' } });
  });

  it('hangs waits for it once, not for each volume, and serves those under local: keys meanwhile', async () => {
    const { scene, kms, key, daemon: before } = await withVolume();
    const more = Array.from({ length: 9 }, (_, i) => `w${i}`);
    for (const name of more)
      await before.ok('volume', 'create', name, '--size', '1M', '--key', `awskms:///${key.arn}`);
    await before.ok('volume', 'create', 'z', '--size', '1M', '--key', 'local:default');
    await before.stop();
    kms.inject('hang');
    const daemon = await scene.daemon();
    const atStart = daemon.log().filter(({ msg }) => msg === 'does not open');
    expect(atStart.map(({ volume }) => volume).sort()).toEqual(['v', ...more]);
    const asked = atStart.filter(({ reason }) => !`${reason}`.startsWith('not asked yet'));
    expect(asked.length).toBeLessThanOrEqual(4);
    expect(await volumeInfo(daemon, 'z')).toMatchObject({ state: 'serving' });
    kms.clearFaults();
    await until('all serve', async () => {
      return (await adminOf(daemon).listVolumes()).every(({ state }) => state === 'serving');
    });
  });

  it('refuses the key does not wait: it is for an operator to open the volume', async () => {
    const { scene, kms, key, daemon: before } = await withVolume();
    await before.stop();
    kms.setState(key, 'Disabled');
    const daemon = await scene.daemon();
    expect(await keyOf(daemon)).toMatchObject({ state: 'invalid' });
    kms.setState(key, 'Enabled');
    await untilKey(daemon, 'valid');
    await validChecks(daemon, 2);
    expect(await volumeInfo(daemon)).toMatchObject({ state: 'key-invalid' });
    await daemon.ok('volume', 'start', 'v');
  });

  it('cannot be reached ends with 4 where it was told to require keys', async () => {
    const { scene, kms, daemon } = await withVolume();
    await daemon.stop();
    await kms.stop();
    const args = ['serve', '--data', scene.data, '--listen', '127.0.0.1:0', '--require-keys'];
    const refused = await sealbd(args, { env: kms.environment(), cwd: temporaryDirectory() });
    expect([refused.code, refused.signal]).toEqual([4, null]);
    expect(refused.stderr).toMatch(/^sealbd: volume "v": .*cannot be reached/m);
    expect(refused.stderr).not.toContain('"msg":"ready');
    await kms.start();
    const again = await scene.daemon(['--require-keys']);
    await expectServing(again);
  });
});
