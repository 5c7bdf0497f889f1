/** The keys that `backup verify` holds are watched, without a daemon, as those of the daemon's jobs are. */
import { beforeEach, describe, expect, it } from 'vitest';
import { verifyOffline } from '../../src/backup/offline.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { exitCodeOf } from '../../src/cli/exit-codes.js';
import { DEFAULT_WATCH } from '../../src/keys/watch-state.js';
import { addon } from '../../src/native/addon.js';
import { FsStore } from '../../src/store/fs-store.js';
import { fakeKms } from '../support/aws-kms.js';
import { BackupSubject } from '../support/backup-subject.js';
import { gate, HookedStore } from '../support/hooked-store.js';
import { expectNoLeakedSlots } from '../support/key-fixtures.js';
import { until } from '../support/until.js';

const ignore = (): void => undefined;
const slotsUsed = (): number => addon.secureMemory().slotsUsed;
const WATCH = { ...DEFAULT_WATCH, intervalMs: 20, confirmMs: 20 };

/** A verification that is held up at the first data file, all keys at hand; `open` lets it go on. */
async function heldVerify(watch = WATCH) {
  const { kms } = await fakeKms();
  const key = kms.createKey();
  const cipher = new CipherPool({ threads: 1 });
  const subject = await BackupSubject.create(2, cipher, 21, `awskms:///${key.arn}`);
  await subject.change(10);
  await subject.backUp('b');
  await subject.stop();
  await cipher.destroy();
  const before = slotsUsed();
  const [reached, waiting] = [gate(), gate()];
  const storeAt = (path: string): HookedStore => {
    const store = new HookedStore(FsStore.at(path));
    store.onRead = async (name) => {
      if (!name.startsWith('data-')) return;
      reached.open();
      await waiting.opened;
    };
    return store;
  };
  const verified = verifyOffline(subject.directory('b'), subject.dataDirectory, ignore, { watch, storeAt });
  const outcome = verified.then(
    (report) => ({ report }),
    (error: Error) => ({ error }),
  );
  await reached.opened;
  expect(slotsUsed()).toBeGreaterThan(before);
  const asked = kms.requests.length;
  /** Until some more questions about the key were answered. */
  const polled = () => until('the key was asked for', () => kms.requests.length >= asked + 6);
  return { kms, key, before, outcome, open: waiting.open, polled };
}

describe('backup verify, its key', () => {
  beforeEach(expectNoLeakedSlots);

  it('disabled meanwhile: wipes its DEKs though it hangs on a disk, and ends with exit 4, naming the key', async () => {
    const { kms, key, before, outcome, open } = await heldVerify();
    kms.setState(key, 'Disabled');
    await until('its keys are wiped', () => slotsUsed() === before);
    kms.setState(key, 'Enabled');
    open();
    const { error } = (await outcome) as { error: Error };
    expect(error).toMatchObject({ code: 'KEY_UNAVAILABLE', message: expect.stringContaining(key.arn) });
    expect(exitCodeOf(error)).toBe(4);
  });

  it('out of reach for the grace period: the same', async () => {
    const { kms, before, outcome, open } = await heldVerify({ ...WATCH, graceMs: 0 });
    await kms.stop();
    await until('its keys are wiped', () => slotsUsed() === before);
    open();
    expect(await outcome).toMatchObject({ error: { code: 'KEY_UNAVAILABLE' } });
  });

  it('good all the while: is asked for, and proves every block', async () => {
    const { before, outcome, open, polled } = await heldVerify();
    await polled();
    expect(slotsUsed()).toBeGreaterThan(before);
    open();
    expect(await outcome).toMatchObject({
      report: { authenticated: true, keyProblem: null, problems: [] },
    });
  });
});
