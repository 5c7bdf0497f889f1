import { afterEach, describe, expect, it } from 'vitest';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import type { SealJob } from '../../src/cipher/jobs.js';
import { addon, RUN_OK, RUN_REVOKED, type SegmentKeyHandle, SUITE_GCM } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import { runProgram } from '../support/programs.js';

const BLOCKS = 64;
const BUILT = new URL('../../dist/cipher/cipher-pool.js', import.meta.url);
/** Node 20 aborted about one process in three of this: what ends a process needs one of its own. */
const SHORT_LIVED_POOLS = `
  const { CipherPool } = await import(${JSON.stringify(BUILT.href)});
  for (let i = 0; i < 90; i++) {
    const pool = new CipherPool({ threads: 2 });
    await new Promise((resolve) => setTimeout(resolve, i % 45));
    await pool.destroy();
  }
  console.log('all ended');
`;

describe('the cipher pool', () => {
  const src = new Arena(BLOCKS * 4096);
  const dst = new Arena(BLOCKS * 4128);
  const dek = addon.keyGenerate();
  const context = new Uint8Array(57).fill(1);
  context[0] = SUITE_GCM;
  let pool: CipherPool;
  afterEach(() => pool.destroy());

  const job = (key: SegmentKeyHandle): SealJob => ({
    op: 'seal',
    key,
    dst: dst.ref(0),
    src: src.ref(0),
    blocks: BLOCKS,
    position: 0,
    lba: 7,
    sequence: 9,
    durable: -1,
    kind: 1,
  });

  it('seals in a thread what it seals inline, byte for byte', async () => {
    pool = new CipherPool({ threads: 2 });
    const key = addon.segmentKeyDerive(dek, SUITE_GCM, context);
    addon.randomFill(src.bytes);
    expect(pool.runInline(job(key), false)).toBe(RUN_OK);
    const inline = dst.bytes.slice();
    dst.bytes.fill(0);
    expect(await pool.run(job(key))).toBe(RUN_OK);
    expect(Buffer.compare(inline, dst.bytes)).toBe(0);
    expect(pool.stats()).toMatchObject({ jobs: 1, inlineJobs: 1 });
    addon.segmentKeyRelease(key);
  });

  it('never hands more than its queue to the threads: the rest waits its turn, and all of it is done', async () => {
    pool = new CipherPool({ threads: 1, queueMax: 4 });
    const key = addon.segmentKeyDerive(dek, SUITE_GCM, context);
    const runs = Array.from({ length: 200 }, () => pool.run(job(key)));
    await Promise.resolve();
    expect(pool.stats()).toMatchObject({ jobs: 4, waiting: 196 });
    expect(new Set(await Promise.all(runs))).toEqual(new Set([RUN_OK]));
    expect(pool.stats()).toMatchObject({ jobs: 200, waiting: 0 });
    addon.segmentKeyRelease(key);
  });

  it('answers jobs under a key that was taken away with its own status', async () => {
    pool = new CipherPool({ threads: 1 });
    const taken = addon.keyGenerate();
    const key = addon.segmentKeyDerive(taken, SUITE_GCM, context);
    addon.keyRevoke(taken);
    expect(await pool.run(job(key))).toBe(RUN_REVOKED);
    addon.segmentKeyRelease(key);
    addon.keyRelease(taken);
  });

  it('lets jobs under way end before it goes, and refuses those that still wait', async () => {
    pool = new CipherPool({ threads: 1, queueMax: 2 });
    const key = addon.segmentKeyDerive(dek, SUITE_GCM, context);
    const runs = Array.from({ length: 5 }, () => pool.run(job(key)));
    const settled = Promise.allSettled(runs);
    await pool.destroy();
    const results = await settled;
    expect(results.filter((result) => result.status === 'fulfilled')).toHaveLength(2);
    for (const result of results) {
      if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'ESHUTDOWN' });
    }
    addon.segmentKeyRelease(key);
  });

  it('ends no thread that still loads, and the process waits for it', async () => {
    pool = new CipherPool({ threads: 1 });
    const args = ['--input-type=module', '-e', SHORT_LIVED_POOLS];
    const result = await runProgram(process.execPath, args, { timeoutMs: 50_000 });
    expect([result.code, result.stdout, result.stderr]).toEqual([0, 'all ended\n', '']);
  });
});
