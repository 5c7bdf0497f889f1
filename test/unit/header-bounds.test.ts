import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { DEKS_ASKED_AT_ONCE, KEY_CHECK_TIMEOUT_MS } from '../../src/base/limits.js';
import { nullLogger } from '../../src/base/log.js';
import { systemRandom } from '../../src/keys/random.js';
import { VolumeHeader } from '../../src/keys/volume-header.js';
import { KeyProviders } from '../../src/kms/registry.js';
import { addon, SUITE_GCM } from '../../src/native/addon.js';
import { FsStore } from '../../src/store/fs-store.js';
import { expectNoLeakedSlots, kmsEnvironment, temporaryDirectory } from '../support/key-fixtures.js';
import { ManualClock } from '../support/manual-clock.js';
import { ScriptedService } from '../support/scripted-provider.js';

const DEKS = DEKS_ASKED_AT_ONCE + 4;

/** A closed volume with many DEKs, whose providers run on a clock of the test's. */
async function closedVolume() {
  const service = new ScriptedService();
  onTestFinished(() => service.end());
  const clock = new ManualClock();
  const environment = { ...kmsEnvironment(temporaryDirectory()), clock };
  const providers = new KeyProviders(environment, [service.scheme]);
  const store = await FsStore.open(join(environment.dataDirectory, 'v'), { create: true });
  const shared = { store, providers, clock: systemClock, keyUri: 'scripted:a' };
  const header = await VolumeHeader.create({
    ...{ ...shared, random: systemRandom, sizeBytes: 2 ** 30, suite: SUITE_GCM },
  });
  for (let id = 2; id <= DEKS; id += 1) {
    await header.addPending({ ...shared, rewrite: false });
    await header.activatePending();
  }
  header.revoke();
  service.questions = 0;
  const open = () => VolumeHeader.open({ store, providers, pins: {}, log: nullLogger });
  return { service, clock, providers, store, open };
}

/** From now on the service answers when it is told to. */
function hold(service: ScriptedService): { waiting: (() => void)[]; answerAll: () => void } {
  const waiting: (() => void)[] = [];
  const ask = service.ask.bind(service);
  service.ask = async () => {
    await new Promise<void>((resolve) => waiting.push(resolve));
    return ask();
  };
  const answerAll = (): void => {
    for (const answer of waiting.splice(0)) answer();
  };
  return { waiting, answerAll };
}

describe('the key service of a volume that opens', () => {
  beforeEach(expectNoLeakedSlots);

  it('that hangs is waited for once, however many DEKs there are; what it gives later is wiped', async () => {
    const { service, clock, open } = await closedVolume();
    const { waiting, answerAll } = hold(service);
    const opening = open();
    await vi.waitFor(() => expect(waiting).toHaveLength(DEKS_ASKED_AT_ONCE), { timeout: 30_000 });
    clock.advance(KEY_CHECK_TIMEOUT_MS);
    await expect(opening).rejects.toMatchObject({ kind: 'unreachable', message: 'no answer in 10s' });
    const used = addon.secureMemory().slotsUsed;
    answerAll();
    await vi.waitFor(() => expect(service.questions).toBe(DEKS_ASKED_AT_ONCE), { timeout: 30_000 });
    expect(addon.secureMemory().slotsUsed).toBe(used);
  });

  it('that is slow has its time for each DEK, and is asked about a few at once', async () => {
    const { service, clock, open } = await closedVolume();
    const { waiting, answerAll } = hold(service);
    const opening = open();
    for (const count of [DEKS_ASKED_AT_ONCE, DEKS - DEKS_ASKED_AT_ONCE]) {
      await vi.waitFor(() => expect(waiting).toHaveLength(count), { timeout: 30_000 });
      clock.advance(KEY_CHECK_TIMEOUT_MS - 1);
      answerAll();
    }
    const header = await opening;
    expect(header.deks.size).toBe(DEKS);
    header.revoke();
  });
});

describe('the key service of a volume that is made', () => {
  beforeEach(expectNoLeakedSlots);

  it('that hangs is not waited for longer than its time', async () => {
    const { service, clock, providers, store } = await closedVolume();
    for (const answers of [['hangs'], ['yes', 'hangs']] as const) {
      service.questions = 0;
      service.queue.push(...answers);
      const creating = VolumeHeader.create({
        ...{ store, providers, clock, random: systemRandom },
        ...{ sizeBytes: 2 ** 30, suite: SUITE_GCM, keyUri: 'scripted:a' },
      });
      const failed = expect(creating).rejects.toMatchObject({ kind: 'unreachable' });
      await vi.waitFor(() => expect(service.questions).toBe(answers.length), { timeout: 30_000 });
      clock.advance(KEY_CHECK_TIMEOUT_MS);
      await failed;
    }
  });
});
