import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { type Clock, systemClock } from '../../src/base/clock.js';
import { DEKS_ASKED_AT_ONCE, KEY_CHECK_TIMEOUT_MS } from '../../src/base/limits.js';
import { checkDeks } from '../../src/keys/key-answer.js';
import { systemRandom } from '../../src/keys/random.js';
import type { DekRecord, Superblock } from '../../src/keys/superblock.js';
import { VolumeHeader } from '../../src/keys/volume-header.js';
import { KeyProviders } from '../../src/kms/registry.js';
import { addon, type KeyHandle, SUITE_GCM } from '../../src/native/addon.js';
import { FsStore } from '../../src/store/fs-store.js';
import { expectNoLeakedSlots, kmsEnvironment, temporaryDirectory } from '../support/key-fixtures.js';
import { ManualClock } from '../support/manual-clock.js';
import { ScriptedService } from '../support/scripted-provider.js';

/** A volume with a DEK under each of `uris`; the services answer `yes` at first. */
async function volumeUnder(...uris: string[]) {
  const one = new ScriptedService();
  const other = new ScriptedService();
  onTestFinished(() => {
    one.end();
    other.end();
  });
  const data = temporaryDirectory();
  const schemes = [one.scheme, { ...other.scheme, scheme: 'other' }];
  const providers = new KeyProviders(kmsEnvironment(data), schemes);
  const store = await FsStore.open(join(data, 'v'), { create: true });
  const shared = { store, providers, clock: systemClock, random: systemRandom };
  const header = await VolumeHeader.create({
    ...shared,
    sizeBytes: 2 ** 30,
    suite: SUITE_GCM,
    keyUri: uris[0],
  });
  onTestFinished(() => header.revoke());
  const handles = new Map<number, KeyHandle>();
  const deks: DekRecord[] = [];
  for (const [index, keyUri] of uris.entries()) {
    const id = index + 1;
    const handle = addon.keyGenerate();
    onTestFinished(() => addon.keyRelease(handle));
    handles.set(id, handle);
    const context = { volumeUuid: header.superblock.uuid, dekId: id, exposed: false };
    const { blob: wrapped, ...key } = await providers.open(keyUri).wrap(handle, context);
    deks.push({ ...header.superblock.deks[0], id, keyUri, ...key, wrapped });
  }
  const superblock: Superblock = { ...header.superblock, deks };
  one.questions = 0;
  return {
    one,
    other,
    handles,
    check: (clock: Clock = systemClock) => checkDeks(superblock, handles, providers, clock),
  };
}

describe('the answer for a volume', () => {
  beforeEach(expectNoLeakedSlots);

  it('is valid where every DEK unwraps to the one in its slot', async () => {
    const { one, check } = await volumeUnder('scripted:a', 'scripted:a', 'other:b');
    expect(await check()).toEqual({ kind: 'valid' });
    expect(one.questions).toBe(2);
  });

  it('is the refusal of one DEK, though another one under the same key is damaged', async () => {
    const { one, check } = await volumeUnder('scripted:a', 'scripted:a', 'scripted:a');
    for (const answers of [
      ['damaged', 'refused', 'yes'],
      ['refused', 'damaged', 'yes'],
      ['yes', 'damaged', 'refused'],
      ['unreachable', 'damaged', 'refused'],
    ] as const) {
      one.queue.push(...answers);
      expect(await check()).toMatchObject({ kind: 'refused', reason: expect.stringContaining('refused') });
    }
  });

  it('says what the service knows of the key that wrapped the DEK, not of the one that its URI names now', async () => {
    const { one, check } = await volumeUnder('scripted:a');
    one.resolve = () => 'another key';
    one.queue.push('refused');
    expect(await check()).toEqual({
      kind: 'refused',
      reason: 'the service is refused (scripted:a, as the script has it)',
    });
  });

  it('is unreachable, and not valid, where a DEK is in no slot', async () => {
    const { check, handles } = await volumeUnder('scripted:a', 'scripted:a');
    handles.delete(2);
    expect(await check()).toMatchObject({ kind: 'unreachable', reason: expect.stringContaining('DEK 2') });
  });

  it('is the refusal of the last of many DEKs', async () => {
    const { one, check } = await volumeUnder(...new Array<string>(3 * DEKS_ASKED_AT_ONCE).fill('scripted:a'));
    one.queue.push('damaged', ...new Array<'yes'>(3 * DEKS_ASKED_AT_ONCE - 2).fill('yes'), 'refused');
    expect((await check()).kind).toBe('refused');
  });

  it('does not wait for the rest of the DEKs once one is refused', async () => {
    const { one, check } = await volumeUnder(...new Array<string>(3 * DEKS_ASKED_AT_ONCE).fill('scripted:a'));
    one.queue.push('refused');
    expect((await check()).kind).toBe('refused');
    expect(one.questions).toBe(DEKS_ASKED_AT_ONCE);
  });

  it('comes after one time-out where the service hangs, however many DEKs there are', async () => {
    const uris = new Array<string>(5 * DEKS_ASKED_AT_ONCE).fill('scripted:a');
    const { one, check } = await volumeUnder(...uris);
    const clock = new ManualClock();
    one.answer = 'hangs';
    const answer = check(clock);
    clock.advance(KEY_CHECK_TIMEOUT_MS);
    expect((await answer).kind).toBe('unreachable');
    expect(one.questions).toBe(DEKS_ASKED_AT_ONCE);
  });

  it('is the refusal of one key though the service of another one hangs', async () => {
    const { one, other, check } = await volumeUnder(
      ...new Array<string>(2 * DEKS_ASKED_AT_ONCE).fill('scripted:a'),
      'other:b',
    );
    const clock = new ManualClock();
    one.answer = 'hangs';
    other.answer = 'refused';
    const answer = check(clock);
    clock.advance(KEY_CHECK_TIMEOUT_MS);
    expect(await answer).toMatchObject({ kind: 'refused' });
  });
});
