import { describe, expect, it } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { SealbdError } from '../../src/base/errors.js';
import { JOBS_REMEMBERED_MAX, JOBS_RUNNING_MAX } from '../../src/base/limits.js';
import { nullLogger } from '../../src/base/log.js';
import { Jobs } from '../../src/daemon/jobs.js';
import { Serial } from '../../src/daemon/serial.js';
import type { JobControl } from '../../src/keys/job-keys.js';
import { ManualClock } from '../support/manual-clock.js';

const RESULT = { checkedBlocks: 1, lost: [], problems: [] };
const makeJobs = () => new Jobs(systemClock, nullLogger);

/** Work that lasts until it is let go, or cancelled. */
function held(): { work: (control: JobControl) => Promise<typeof RESULT>; letGo: () => void } {
  let letGo = (): void => undefined;
  const gate = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const work = async ({ signal, onProgress }: JobControl) => {
    onProgress(10, 100);
    await Promise.race([
      gate,
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    ]);
    return RESULT;
  };
  return { work, letGo };
}

describe('jobs', () => {
  it('show progress while they run and a result afterwards', async () => {
    const jobs = makeJobs();
    const { work, letGo } = held();
    const { id } = jobs.start('verify', 'v', work);
    expect(jobs.get(id)).toMatchObject({ state: 'running', doneBytes: 10, totalBytes: 100, endedAt: null });
    letGo();
    await expect.poll(() => jobs.get(id).state).toBe('done');
    expect(jobs.get(id)).toMatchObject({ result: RESULT, error: null, endedAt: expect.any(String) });
  });

  it('fail with the code of their error', async () => {
    const jobs = makeJobs();
    const { id } = jobs.start('verify', 'v', () => Promise.reject(new SealbdError('EIO', 'broken')));
    await expect.poll(() => jobs.get(id).state).toBe('failed');
    expect(jobs.get(id).error).toEqual({ code: 'EIO', message: 'broken' });
  });

  it('are cancelled once, and cancel waits for their end', async () => {
    const jobs = makeJobs();
    const { id } = jobs.start('verify', 'v', held().work);
    expect(await jobs.cancel(id)).toMatchObject({ state: 'cancelled', error: null, result: null });
    await expect(jobs.cancel(id)).rejects.toMatchObject({ code: 'CONFLICT' });
    await expect(jobs.cancel('77')).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });

  it('that hang are told to end, and cancel says after its limit that they have not', async () => {
    const clock = new ManualClock();
    const jobs = new Jobs(clock, nullLogger);
    let answer = (): void => undefined;
    const hung = new Promise<typeof RESULT>((_, reject) => {
      answer = () => reject(new Error('at last'));
    });
    const { id } = jobs.start('backup', 'v', () => hung);
    const cancelling = jobs.cancel(id, 5000);
    clock.advance(5000);
    expect(await cancelling).toMatchObject({ state: 'running', endedAt: null });
    answer();
    await expect.poll(() => jobs.get(id).state).toBe('cancelled');
  });

  it('run once for a volume, and are all cancelled when it stops', async () => {
    const jobs = makeJobs();
    const first = jobs.start('verify', 'v', held().work);
    const other = jobs.start('verify', 'w', held().work);
    expect(() => jobs.start('verify', 'v', held().work)).toThrow(
      expect.objectContaining({ code: 'CONFLICT' }),
    );
    jobs.abortAll('v');
    await expect.poll(() => jobs.get(first.id).state).toBe('cancelled');
    expect(jobs.get(other.id).state).toBe('running');
    jobs.abortAll();
    await expect.poll(() => jobs.get(other.id).state).toBe('cancelled');
  });

  it('are limited while they run, and forgotten oldest first', async () => {
    const jobs = makeJobs();
    for (let i = 0; i < JOBS_RUNNING_MAX; i += 1) jobs.start('verify', `v${i}`, held().work);
    expect(() => jobs.start('verify', 'one-more', held().work)).toThrow(
      expect.objectContaining({ code: 'CONFLICT' }),
    );
    jobs.abortAll();
    await expect.poll(() => jobs.list().every((job) => job.state === 'cancelled')).toBe(true);
    for (let i = 0; i < JOBS_REMEMBERED_MAX; i += 1) {
      jobs.start('verify', 'v', () => Promise.resolve(RESULT));
      await expect.poll(() => jobs.list().at(-1)?.state, { interval: 1 }).toBe('done');
    }
    expect(jobs.list().length).toBe(JOBS_REMEMBERED_MAX);
    expect(() => jobs.get('1')).toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
  });
});

describe('operations of one key', () => {
  it('run one after another, in order, whatever fails; other keys do not wait', async () => {
    const serial = new Serial();
    const order: string[] = [];
    let letGo = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      letGo = resolve;
    });
    const first = serial.run('a', async () => {
      await gate;
      order.push('a1');
      throw new Error('a1 failed');
    });
    const second = serial.run('a', async () => order.push('a2'));
    await serial.run('b', async () => order.push('b'));
    letGo();
    await expect(first).rejects.toThrow('a1 failed');
    await second;
    expect(order).toEqual(['b', 'a1', 'a2']);
  });
});
