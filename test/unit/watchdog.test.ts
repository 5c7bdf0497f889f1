import { describe, expect, it } from 'vitest';
import { KEY_CHECK_TIMEOUT_MS, REFUSAL_STANDS_MS, SLEEP_LOOK_MS } from '../../src/base/limits.js';
import { nullLogger } from '../../src/base/log.js';
import type { RandomSource } from '../../src/base/random.js';
import { ask, type KeyAnswer } from '../../src/keys/key-answer.js';
import type { WatchTarget } from '../../src/keys/key-watch.js';
import { firstState, type WatchPhase, type WatchPolicy } from '../../src/keys/watch-state.js';
import { Watchdog } from '../../src/keys/watchdog.js';
import { ManualClock } from '../support/manual-clock.js';

const policy: WatchPolicy = { intervalMs: 600_000, graceMs: 86_400_000, confirmMs: 5000, resume: 'manual' };
/** The middle of every range: an interval is exact, a retry takes three quarters of its span. */
const middle: RandomSource = {
  fill(bytes) {
    bytes.fill(0);
    bytes[0] = 0x80;
    return bytes;
  },
};

/** A watched volume that does what it is told, at the times that the clock says. */
class Subject implements WatchTarget {
  readonly clock = new ManualClock();
  readonly start = this.clock.monotonic();
  readonly done: string[] = [];
  answers: (() => Promise<KeyAnswer>)[] = [];
  fails = false;
  readonly watchdog: Watchdog;

  constructor(change: Partial<WatchPolicy> = {}, phase: WatchPhase = 'serving') {
    const { clock } = this;
    const dependencies = { clock, random: middle, log: nullLogger };
    this.watchdog = new Watchdog({ policy: { ...policy, ...change }, ...dependencies });
    this.follow(1, phase);
  }

  follow(epoch: number, phase: WatchPhase): void {
    const state = firstState(phase, phase === 'serving' ? 'valid' : 'unreachable', undefined);
    this.watchdog.follow('v', { epoch, state, target: this });
  }

  get at(): number {
    return this.clock.monotonic() - this.start;
  }

  /** Answers from the next question on; the last one is repeated. */
  script(...kinds: (KeyAnswer['kind'] | 'hangs')[]): void {
    this.answers = kinds.map((kind) => () => {
      if (kind === 'hangs') return new Promise(() => undefined);
      return Promise.resolve<KeyAnswer>(kind === 'valid' ? { kind } : { kind, reason: kind });
    });
  }

  ask(): Promise<KeyAnswer> {
    this.done.push(`${this.at} ask`);
    const answer = this.answers.length > 1 ? this.answers.shift() : this.answers[0];
    return ask(this.clock, answer!());
  }

  note(): void {}

  async stop(reason: string): Promise<void> {
    this.done.push(`${this.at} stop: ${reason}`);
    if (this.fails) throw new Error('not now');
    this.follow(2, 'stopped');
  }

  async open(): Promise<void> {
    this.done.push(`${this.at} open`);
    this.follow(3, 'serving');
  }

  /** In steps, so that promises settle where timers fired. */
  async advance(ms: number, stepMs = 1000): Promise<void> {
    for (let left = ms; left > 0; left -= stepMs) {
      this.clock.advance(Math.min(left, stepMs));
      await settle();
    }
  }
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

describe('the watchdog', () => {
  it('asks every interval, and tells when it will', async () => {
    const subject = new Subject();
    subject.script('valid');
    expect(subject.watchdog.times('v')?.nextCheckAt).toBe(subject.clock.now() + 600_000);
    await subject.advance(1_800_000);
    expect(subject.done).toEqual(['600000 ask', '1200000 ask', '1800000 ask']);
  });

  it('stops a volume when a refusal is confirmed, and polls on', async () => {
    const subject = new Subject();
    subject.script('refused');
    await subject.advance(605_000);
    expect(subject.done).toEqual(['600000 ask', '605000 ask', '605000 stop: refused']);
    await subject.advance(1_200_000);
    expect(subject.done.slice(3, 4)).toEqual([expect.stringMatching(/ask$/)]);
    expect(subject.done.filter((line) => line.includes('stop'))).toHaveLength(1);
  });

  it('does not stop for a refusal that is not confirmed', async () => {
    const subject = new Subject();
    subject.script('refused', 'valid');
    await subject.advance(1_300_000);
    expect(subject.done).toEqual(['600000 ask', '605000 ask', '1205000 ask']);
  });

  it.each(['unreachable', 'damaged'] as const)(
    'stops a volume that was refused and then %s, minutes later and not after the grace period',
    async (then) => {
      const subject = new Subject();
      subject.script('refused', then);
      await subject.advance(policy.intervalMs + REFUSAL_STANDS_MS);
      const reason = `stop: refused, and not valid since, for 5m: refused; the last answer was: ${then}`;
      expect(subject.done).toContain(`${policy.intervalMs + REFUSAL_STANDS_MS} ${reason}`);
    },
  );

  it('a check on demand right after a refusal does not confirm it', async () => {
    const subject = new Subject();
    subject.script('refused');
    await subject.watchdog.check('v');
    await subject.advance(2000);
    await subject.watchdog.check('v');
    expect(subject.done).toEqual(['0 ask', '2000 ask']);
    await subject.advance(3000);
    expect(subject.done.slice(2)).toEqual(['5000 ask', '5000 stop: refused']);
  });

  it('serves an unreachable key through the grace period, counting down, and stops at its end', async () => {
    const subject = new Subject({ graceMs: 100_000, intervalMs: 10_000 });
    subject.script('unreachable');
    await subject.advance(10_000);
    const end = subject.clock.now() + 100_000;
    expect(subject.watchdog.times('v')?.graceEndsAt).toBe(end);
    await subject.advance(99_000);
    expect(subject.watchdog.times('v')?.graceEndsAt).toBe(end);
    expect(subject.done.every((line) => line.endsWith('ask'))).toBe(true);
    await subject.advance(1000);
    expect(subject.done.at(-1)).toBe('110000 stop: not reachable for the grace period of 100s: unreachable');
    expect(subject.watchdog.times('v')?.graceEndsAt).toBeUndefined();
  });

  it('backs off: 1.5 s, 3 s, 6 s, 12 s, 24 s, then 45 s', async () => {
    const subject = new Subject();
    subject.script('unreachable');
    await subject.advance(600_000 + 1500 + 3000 + 6000 + 12_000 + 24_000 + 45_000 + 45_000, 500);
    const times = subject.done.map((line) => Number.parseInt(line, 10) - 600_000);
    expect(times).toEqual([0, 1500, 4500, 10_500, 22_500, 46_500, 91_500, 136_500]);
  });

  it('one outage leaves nothing behind: the next one has the whole grace period', async () => {
    const subject = new Subject({ graceMs: 50_000, intervalMs: 10_000 });
    subject.script('unreachable', 'unreachable', 'unreachable', 'valid', 'unreachable');
    await subject.advance(60_000, 500);
    expect(subject.done.some((line) => line.includes('stop'))).toBe(false);
    expect(subject.watchdog.times('v')?.graceEndsAt).toBeGreaterThan(subject.clock.now() + 10_000);
  });

  it('with a grace period of 0 stops at the first unreachable answer', async () => {
    const subject = new Subject({ graceMs: 0 });
    subject.script('unreachable');
    await subject.watchdog.check('v');
    expect(subject.done.at(-1)).toMatch(/^0 stop: not reachable/);
  });

  it('a service that hangs is unreachable after a while, and its late answer is nothing', async () => {
    const subject = new Subject();
    subject.script('hangs', 'valid');
    void subject.watchdog.check('v');
    await settle();
    await subject.advance(KEY_CHECK_TIMEOUT_MS - 1000);
    expect(subject.watchdog.times('v')?.graceEndsAt).toBeUndefined();
    await subject.advance(1000);
    expect(subject.watchdog.times('v')?.graceEndsAt).toBe(subject.clock.now() + policy.graceMs);
    await subject.advance(2000);
    expect(subject.watchdog.times('v')?.graceEndsAt).toBeUndefined();
  });

  it('a damaged wrap does not stop the volume', async () => {
    const subject = new Subject();
    subject.script('damaged');
    await subject.advance(6_000_000, 10_000);
    expect(subject.done).toHaveLength(10);
    expect(subject.done.every((line) => line.endsWith('ask'))).toBe(true);
  });

  it('opens a volume again with resume: auto only', async () => {
    for (const resume of ['auto', 'manual'] as const) {
      const subject = new Subject({ resume }, 'stopped');
      subject.script('valid');
      await subject.advance(600_000);
      const opened = subject.done.some((line) => line.includes('open'));
      expect(opened).toBe(resume === 'auto');
    }
  });

  it('opens a volume that could not be opened at the start for want of the service', async () => {
    const subject = new Subject({}, 'waiting');
    subject.script('unreachable', 'valid');
    await subject.advance(10_000, 500);
    expect(subject.done).toEqual(['1500 ask', '4500 ask', '4500 open']);
  });

  it('tries again to stop what it could not stop', async () => {
    const subject = new Subject({ intervalMs: 10_000 });
    subject.script('refused');
    subject.fails = true;
    await subject.advance(15_000);
    expect(subject.done.at(-1)).toBe('15000 stop: refused');
    subject.fails = false;
    await subject.advance(2000);
    expect(subject.done.slice(-2)).toEqual(['17000 ask', '17000 stop: refused']);
  });

  it('an answer that comes after the volume was stopped or opened anew counts for nothing', async () => {
    const subject = new Subject({ graceMs: 0 });
    subject.script('hangs', 'valid');
    void subject.watchdog.check('v');
    await settle();
    subject.follow(2, 'serving');
    await subject.advance(KEY_CHECK_TIMEOUT_MS);
    expect(subject.done).toEqual(['0 ask']);
  });

  it('asks at once after the machine slept for longer than an interval, and goes on as before', async () => {
    const subject = new Subject();
    subject.script('valid');
    await subject.advance(60_000);
    subject.clock.sleep(policy.intervalMs + 1);
    await subject.advance(SLEEP_LOOK_MS);
    expect(subject.done).toEqual([`${60_000 + SLEEP_LOOK_MS} ask`]);
    await subject.advance(policy.intervalMs);
    expect(subject.done).toEqual([
      `${60_000 + SLEEP_LOOK_MS} ask`,
      `${60_000 + SLEEP_LOOK_MS + policy.intervalMs} ask`,
    ]);
  });

  it('does not ask for a short sleep, or a clock that is set back or slewed', async () => {
    const subject = new Subject();
    subject.script('valid');
    for (const ms of [policy.intervalMs, -2 * policy.intervalMs, 5000, 5000, 5000]) {
      subject.clock.sleep(ms);
      await subject.advance(SLEEP_LOOK_MS);
    }
    expect(subject.done).toEqual([]);
    await subject.advance(policy.intervalMs - 5 * SLEEP_LOOK_MS);
    expect(subject.done).toEqual([`${policy.intervalMs} ask`]);
  });

  it('asks no more when it is closed, or nothing is to be watched', async () => {
    const closed = new Subject();
    closed.watchdog.close();
    const forgotten = new Subject();
    forgotten.watchdog.follow('v', undefined);
    for (const subject of [closed, forgotten]) {
      subject.script('refused');
      await subject.watchdog.check('v');
      await subject.advance(2_000_000, 10_000);
      expect([subject.done, subject.watchdog.times('v')]).toEqual([[], undefined]);
    }
  });
});
