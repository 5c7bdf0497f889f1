import { createDecipheriv } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  addon,
  type KeyHandle,
  RUN_OK,
  RUN_REVOKED,
  type SegmentKeyHandle,
  SUITE_CTR,
  SUITE_GCM,
  SUITE_NONE,
} from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import { inWorker } from '../support/native-worker.js';

const EMPTY = Buffer.alloc(0);
const STATES = ['live', 'released', 'revoked', 'never existed'] as const;
type State = (typeof STATES)[number];

function keyIn(state: State): KeyHandle {
  if (state === 'never existed') return (2 ** 52 - 1) as KeyHandle;
  const key = addon.keyGenerate();
  if (state === 'released') addon.keyRelease(key);
  if (state === 'revoked') addon.keyRevoke(key);
  return key;
}

function contextOf(suite: number): Buffer {
  return Buffer.alloc(57, suite);
}

/** What each method of a key does with it. The second key of a pair is always live. */
const other = addon.keyGenerate();
const METHODS: Record<string, (key: KeyHandle) => unknown> = {
  keyExportBase64: (key) => addon.keyExportBase64(key, Buffer.alloc(44), 0),
  keyEquals: (key) => addon.keyEquals(key, other),
  'keyEquals, second': (key) => addon.keyEquals(other, key),
  keyMac: (key) => addon.keyMac(key, 'label', EMPTY, EMPTY),
  keyMacVerify: (key) => addon.keyMacVerify(key, 'label', EMPTY, EMPTY, Buffer.alloc(16)),
  'keyWrap, as kek': (key) => addon.keyWrap(key, other, EMPTY),
  'keyWrap, as key': (key) => addon.keyWrap(other, key, EMPTY),
  keyRetain: (key) => {
    addon.keyRetain(key);
    addon.keyRelease(key);
  },
  segmentKeyDerive: (key) =>
    addon.segmentKeyRelease(addon.segmentKeyDerive(key, SUITE_GCM, contextOf(SUITE_GCM))),
};

function outcome(call: () => unknown): string {
  try {
    call();
    return 'ok';
  } catch (error) {
    return (error as { code: string }).code;
  }
}

const EXPECTED = {
  live: 'ok',
  released: 'KEY_STALE',
  revoked: 'KEY_REVOKED',
  'never existed': 'KEY_STALE',
} as const;

describe.each(STATES)('a key that is %s', (state) => {
  test.each(Object.keys(METHODS))('%s', (method) => {
    const key = keyIn(state);
    expect(outcome(() => METHODS[method]!(key))).toBe(EXPECTED[state]);
    if (state === 'live' || state === 'revoked') addon.keyRelease(key);
  });

  test('keyUnwrap under it', () => {
    const key = addon.keyGenerate();
    const blob = addon.keyWrap(key, other, EMPTY);
    if (state === 'released') addon.keyRelease(key);
    if (state === 'revoked') addon.keyRevoke(key);
    const used = state === 'never existed' ? keyIn(state) : key;
    expect(outcome(() => addon.keyRelease(addon.keyUnwrap(used, blob, EMPTY)))).toBe(EXPECTED[state]);
    if (state !== 'released') addon.keyRelease(key);
  });

  test('keyIsRevoked, keyRevoke and keyRelease', () => {
    const key = keyIn(state);
    const gone = state === 'released' || state === 'never existed';
    if (!gone) expect(addon.keyIsRevoked(key)).toBe(state === 'revoked');
    expect(outcome(() => addon.keyIsRevoked(key))).toBe(gone ? 'KEY_STALE' : 'ok');
    expect(outcome(() => addon.keyRevoke(key))).toBe(gone ? 'KEY_STALE' : 'ok');
    expect(outcome(() => addon.keyRelease(key))).toBe(gone ? 'KEY_STALE' : 'ok');
    expect(outcome(() => addon.keyRelease(key))).toBe('KEY_STALE');
  });

  test('keyMac in a worker thread', async () => {
    const key = keyIn(state);
    const script = `
      try {
        const mac = addon.keyMac(data, 'label', Buffer.alloc(0), Buffer.alloc(0));
        parentPort.postMessage(mac.length === 16 ? 'ok' : 'short');
      } catch (error) {
        parentPort.postMessage(error.code);
      }
    `;
    expect(await inWorker(script, key)).toBe(EXPECTED[state]);
    if (state === 'live' || state === 'revoked') addon.keyRelease(key);
  });
});

describe('a segment key', () => {
  const arena = new Arena(1 << 20);
  const seal = (key: SegmentKeyHandle) =>
    addon.sealRun(key, arena.ref(65536), arena.ref(0), 2, 0, 0, 1, -1, 1);
  const open = (key: SegmentKeyHandle) => addon.openRun(key, arena.ref(0), arena.ref(65536), 2, 0, 0);
  const scan = (key: SegmentKeyHandle) =>
    addon.scanRun(key, arena.ref(0), arena.ref(65536), 2, 0, new Uint8Array(2));
  const runs = [seal, open, scan];

  test.each([SUITE_CTR, SUITE_GCM])('of a live parent works, suite %i', (suite) => {
    const parent = addon.keyGenerate();
    const key = addon.segmentKeyDerive(parent, suite, contextOf(suite));
    for (const run of runs) expect(run(key)).toBe(RUN_OK);
    addon.segmentKeyRelease(key);
    addon.keyRelease(parent);
  });

  test('that was released is stale, also after its place was taken again', () => {
    const parent = addon.keyGenerate();
    const stale = addon.segmentKeyDerive(parent, SUITE_GCM, contextOf(SUITE_GCM));
    addon.segmentKeyRelease(stale);
    const taken = Array.from({ length: 2000 }, () =>
      addon.segmentKeyDerive(parent, SUITE_GCM, contextOf(SUITE_GCM)),
    );
    for (const run of runs) expect(outcome(() => run(stale))).toBe('KEY_STALE');
    expect(outcome(() => addon.segmentKeyRelease(stale))).toBe('KEY_STALE');
    for (const key of taken) addon.segmentKeyRelease(key);
    addon.keyRelease(parent);
  });

  test.each(['revoked', 'released for the last time'])('of a parent that is %s runs no more', (end) => {
    const parent = addon.keyGenerate();
    const stranger = addon.keyGenerate();
    const keys = [SUITE_CTR, SUITE_GCM].map((suite) =>
      addon.segmentKeyDerive(parent, suite, contextOf(suite)),
    );
    const unconcerned = addon.segmentKeyDerive(stranger, SUITE_GCM, contextOf(SUITE_GCM));
    if (end === 'revoked') addon.keyRevoke(parent);
    else addon.keyRelease(parent);
    for (const key of keys) {
      for (const run of runs) expect(run(key)).toBe(RUN_REVOKED);
      addon.segmentKeyRelease(key);
    }
    expect(seal(unconcerned)).toBe(RUN_OK);
    addon.segmentKeyRelease(unconcerned);
    addon.keyRelease(stranger);
    if (end === 'revoked') addon.keyRelease(parent);
  });

  test('of the suite none takes no parent, the others need one, and the context must name the suite', () => {
    const parent = addon.keyGenerate();
    const none = addon.segmentKeyDerive(null, SUITE_NONE, contextOf(SUITE_NONE));
    expect(seal(none)).toBe(RUN_OK);
    addon.segmentKeyRelease(none);
    const derive = (key: KeyHandle | null, suite: number, context: Buffer) =>
      outcome(() => addon.segmentKeyDerive(key, suite, context));
    expect(derive(parent, SUITE_NONE, contextOf(SUITE_NONE))).toBe('EINVAL');
    expect(derive(null, SUITE_GCM, contextOf(SUITE_GCM))).toBe('EINVAL');
    expect(derive(parent, SUITE_GCM, contextOf(SUITE_CTR))).toBe('EINVAL');
    expect(derive(parent, SUITE_GCM, Buffer.alloc(56, SUITE_GCM))).toBe('EINVAL');
    expect(derive(parent, 3, contextOf(3))).toBe('EINVAL');
    addon.keyRelease(parent);
  });
});

describe('moving keys in and out', () => {
  test('import wipes its source, export gives the key back, base64 text is overwritten', () => {
    const bytes = Buffer.from(Array.from({ length: 32 }, (_, i) => 255 - 7 * i));
    const source = Buffer.from(bytes);
    const key = addon.keyImport(source);
    expect(source.equals(Buffer.alloc(32))).toBe(true);
    const text = Buffer.alloc(50, '.');
    addon.keyExportBase64(key, text, 3);
    expect(text.toString()).toBe(`...${bytes.toString('base64')}...`);
    const again = addon.keyImportBase64(text, 3);
    expect(text.toString()).toBe(`...${'*'.repeat(44)}...`);
    expect(addon.keyEquals(key, again)).toBe(true);
    expect(addon.keyEquals(key, other)).toBe(false);
    addon.keyRelease(key);
    addon.keyRelease(again);
  });

  test('base64 agrees with Buffer for every digit', () => {
    for (let i = 0; i < 256; i++) {
      const bytes = Buffer.from(Array.from({ length: 32 }, (_, at) => (i * 31 + at * 97) & 0xff));
      const key = addon.keyImportBase64(Buffer.from(bytes.toString('base64')), 0);
      const text = Buffer.alloc(44);
      addon.keyExportBase64(key, text, 0);
      expect(text.toString()).toBe(bytes.toString('base64'));
      addon.keyRelease(key);
    }
  });

  test.each([
    ['a character outside the alphabet', `${'A'.repeat(20)}-${'A'.repeat(22)}=`],
    ['no padding', 'A'.repeat(44)],
    ['bits beyond the key', `${'A'.repeat(42)}B=`],
    ['text that is too short', `${'A'.repeat(42)}=`],
  ])('base64 with %s is refused', (_name, text) => {
    expect(outcome(() => addon.keyImportBase64(Buffer.from(text), 0))).toBe('EINVAL');
  });

  test('a wrapped key unwraps under the same key and AAD only', () => {
    const kek = addon.keyGenerate();
    const key = addon.keyGenerate();
    const aad = Buffer.from('dek 1 of a volume');
    const blob = addon.keyWrap(kek, key, aad);
    expect(blob).toHaveLength(60);
    const unwrapped = addon.keyUnwrap(kek, blob, aad);
    expect(addon.keyEquals(key, unwrapped)).toBe(true);
    expect(outcome(() => addon.keyUnwrap(other, blob, aad))).toBe('KEY_AUTH');
    expect(outcome(() => addon.keyUnwrap(kek, blob, EMPTY))).toBe('KEY_AUTH');
    expect(outcome(() => addon.keyUnwrap(kek, blob.subarray(1), aad))).toBe('KEY_AUTH');
    for (let i = 0; i < blob.length; i++) {
      blob[i]! ^= 1;
      expect(outcome(() => addon.keyUnwrap(kek, blob, aad))).toBe('KEY_AUTH');
      blob[i]! ^= 1;
    }
    expect(addon.keyWrap(kek, key, aad).equals(blob)).toBe(false);
    for (const each of [kek, key, unwrapped]) addon.keyRelease(each);
  });

  test('wrapping is GCM under KDF(kek, "sealbd/v1/wrap", "")', () => {
    const bytes = Buffer.alloc(32, 9);
    const kek = addon.keyImport(Buffer.from(bytes));
    const key = addon.keyImport(Buffer.alloc(32, 1));
    const blob = addon.keyWrap(kek, key, Buffer.from('aad'));
    const fixed = Buffer.concat([Buffer.from('sealbd/v1/wrap\0'), Buffer.from([0, 0, 1, 0])]);
    const gcm = createDecipheriv(
      'aes-256-gcm',
      addon.primitives.kdf('portable', bytes, fixed, 256),
      blob.subarray(0, 12),
    );
    gcm.setAAD(Buffer.from('aad'));
    gcm.setAuthTag(blob.subarray(44));
    expect(Buffer.concat([gcm.update(blob.subarray(12, 44)), gcm.final()])).toEqual(Buffer.alloc(32, 1));
    addon.keyRelease(kek);
    addon.keyRelease(key);
  });

  test('keyMac is CMAC under the derived key, and keyMacVerify takes nothing else', () => {
    const bytes = Buffer.alloc(32, 3);
    const key = addon.keyImport(Buffer.from(bytes));
    const [context, data] = [Buffer.from('context'), Buffer.from('some data')];
    const fixed = Buffer.concat([Buffer.from('a/label\0'), context, Buffer.from([0, 0, 1, 0])]);
    const derived = addon.primitives.kdf('portable', bytes, fixed, 256);
    const mac = addon.keyMac(key, 'a/label', context, data);
    expect(mac).toEqual(addon.primitives.cmac('portable', derived, data));
    expect(addon.keyMacVerify(key, 'a/label', context, data, mac)).toBe(true);
    for (let i = 0; i < 16; i++) {
      mac[i]! ^= 0x80;
      expect(addon.keyMacVerify(key, 'a/label', context, data, mac)).toBe(false);
      mac[i]! ^= 0x80;
    }
    expect(addon.keyMacVerify(key, 'b/label', context, data, mac)).toBe(false);
    expect(outcome(() => addon.keyMac(key, 'a\0label', context, data))).toBe('EINVAL');
    expect(outcome(() => addon.keyMacVerify(key, 'a/label', context, data, mac.subarray(1)))).toBe('EINVAL');
    addon.keyRelease(key);
  });

  test('the last of several references wipes the slot', () => {
    const before = addon.secureMemory().slotsUsed;
    const key = addon.keyGenerate();
    addon.keyRetain(key);
    addon.keyRelease(key);
    expect(addon.keyIsRevoked(key)).toBe(false);
    addon.keyRelease(key);
    expect(outcome(() => addon.keyIsRevoked(key))).toBe('KEY_STALE');
    expect(addon.secureMemory().slotsUsed).toBe(before);
  });

  test('when all slots are in use the next key is refused with KEY_MEMORY', () => {
    const keys: KeyHandle[] = [];
    let refused = 'ok';
    while (refused === 'ok') refused = outcome(() => keys.push(addon.keyGenerate()));
    expect(refused).toBe('KEY_MEMORY');
    for (const key of keys) addon.keyRelease(key);
    expect(keys.length).toBeGreaterThan(4000);
  });

  test.each([Number.NaN, -1, 0, 0.5, 2 ** 60, Number.POSITIVE_INFINITY])(
    'the number %d is no handle',
    (value) => {
      expect(outcome(() => addon.keyRelease(value as KeyHandle))).toBe('KEY_STALE');
      expect(outcome(() => addon.keyMac(value as KeyHandle, 'l', EMPTY, EMPTY))).toBe('KEY_STALE');
      expect(outcome(() => addon.segmentKeyRelease(value as SegmentKeyHandle))).toBe('KEY_STALE');
    },
  );
});
