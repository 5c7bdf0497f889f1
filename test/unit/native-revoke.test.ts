import { once } from 'node:events';
import { describe, expect, test } from 'vitest';
import { SEGMENT_SLOTS } from '../../src/base/limits.js';
import { addon, RUN_OK, RUN_REVOKED, SUITE_GCM } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import { startWorker } from '../support/native-worker.js';

const BLOCKS = SEGMENT_SLOTS;
const SLOTS_AT = 64 << 20;

/** Seals or opens whole segments in a worker, over and over, until something else than RUN_OK comes back. */
const JOB = `
  const { key, base, slotsAt, blocks, opening } = data;
  const run = () => opening
    ? addon.openRun(key, base, base + slotsAt, blocks, 0, 0)
    : addon.sealRun(key, base + slotsAt, base, blocks, 0, 0, 1, -1, 1);
  addon.sealRun(key, base + slotsAt, base, blocks, 0, 0, 1, -1, 1);
  parentPort.postMessage('running');
  let result;
  do result = run(); while (result === -1);
  parentPort.postMessage(result);
`;

describe('keyRevoke while a worker runs a long job', () => {
  test.each([
    ['sealing', false],
    ['opening', true],
  ])('ends it with RUN_REVOKED: %s', async (_name, opening) => {
    const arena = new Arena(160 << 20);
    const dek = addon.keyGenerate();
    const key = addon.segmentKeyDerive(dek, SUITE_GCM, Buffer.alloc(57, SUITE_GCM));
    const data = { key, base: arena.ref(0), slotsAt: SLOTS_AT, blocks: BLOCKS, opening };
    const worker = startWorker(JOB, data);
    expect(await once(worker, 'message')).toEqual(['running']);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const started = performance.now();
    addon.keyRevoke(dek);
    // A whole run takes far longer than the 64 blocks after which the flag is seen.
    expect(performance.now() - started).toBeLessThan(1000);
    expect(await once(worker, 'message')).toEqual([RUN_REVOKED]);
    if (opening) expect(arena.bytes.subarray(0, 1 << 20).every((byte) => byte === 0)).toBe(true);
    await worker.terminate();
    addon.segmentKeyRelease(key);
    addon.keyRelease(dek);
    arena.free();
  });

  test('a release lets the run finish, and an arena is not freed under it', async () => {
    const arena = new Arena(160 << 20);
    const dek = addon.keyGenerate();
    const key = addon.segmentKeyDerive(dek, SUITE_GCM, Buffer.alloc(57, SUITE_GCM));
    const script = `
      parentPort.postMessage('running');
      let result;
      try {
        for (;;) {
          result = addon.sealRun(data.key, data.base + ${SLOTS_AT}, data.base, ${BLOCKS}, 0, 0, 1, -1, 1);
          if (result !== ${RUN_OK}) break;
        }
      } catch (error) {
        result = error.code;
      }
      parentPort.postMessage(result);
    `;
    const worker = startWorker(script, { key, base: arena.ref(0) });
    await once(worker, 'message');
    await new Promise((resolve) => setTimeout(resolve, 20));
    arena.free();
    expect(await once(worker, 'message')).toEqual(['EINVAL']);
    await worker.terminate();
    addon.segmentKeyRelease(key);
    addon.keyRelease(dek);
  });
});

describe('many workers', () => {
  test('deriving, sealing, retaining and releasing at once end cleanly when the key is revoked', async () => {
    const before = addon.secureMemory();
    const arena = new Arena(4 << 20);
    const dek = addon.keyGenerate();
    const script = `
      const codes = new Set();
      parentPort.postMessage('running');
      for (let round = 0; round < 100000; round++) {
        try {
          const key = addon.segmentKeyDerive(data.dek, 2, Buffer.alloc(57, 2));
          codes.add(addon.sealRun(key, data.base + 65536, data.base, 2, 0, 0, 1, -1, 1));
          addon.segmentKeyRelease(key);
          addon.keyRetain(data.dek);
          addon.keyRelease(data.dek);
        } catch (error) {
          codes.add(error.code);
          break;
        }
      }
      parentPort.postMessage([...codes].sort());
    `;
    const workers = [0, 1, 2, 3].map((i) => startWorker(script, { dek, base: arena.ref(i << 20) }));
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    await new Promise((resolve) => setTimeout(resolve, 30));
    addon.keyRevoke(dek);
    const results = await Promise.all(workers.map((worker) => once(worker, 'message')));
    for (const [codes] of results as [(string | number)[]][]) {
      expect(codes).toContain('KEY_REVOKED');
      expect([RUN_OK, RUN_REVOKED, 'KEY_REVOKED']).toEqual(expect.arrayContaining(codes));
    }
    await Promise.all(workers.map((worker) => worker.terminate()));
    addon.keyRelease(dek);
    arena.free();
    const after = addon.secureMemory();
    expect(after.slotsUsed).toBe(before.slotsUsed);
    expect(after.segmentKeysUsed).toBe(before.segmentKeysUsed);
  });
});
