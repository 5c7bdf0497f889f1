import { describe, expect, it } from 'vitest';
import { KEY_RETRY_MAX_MS, KEY_RETRY_MIN_MS, REFUSAL_STANDS_MS } from '../../src/base/limits.js';
import type { KeyAnswer } from '../../src/keys/key-answer.js';
import {
  delayToNext,
  firstState,
  graceEndsAt,
  next,
  type WatchPhase,
  type WatchPolicy,
  type WatchState,
} from '../../src/keys/watch-state.js';

const MINUTE = 60_000;
const NOW = 1_000_000;
const policy: WatchPolicy = {
  intervalMs: 10 * MINUTE,
  graceMs: 24 * 60 * MINUTE,
  confirmMs: 5000,
  resume: 'manual',
};
const auto: WatchPolicy = { ...policy, resume: 'auto' };

const VALID: KeyAnswer = { kind: 'valid' };
const answer = (kind: 'refused' | 'unreachable' | 'damaged'): KeyAnswer => ({
  kind,
  reason: `it is ${kind}`,
});
const answers = {
  valid: VALID,
  refused: answer('refused'),
  unreachable: answer('unreachable'),
  damaged: answer('damaged'),
};
type AnswerName = keyof typeof answers;

const serving = firstState('serving', 'valid', undefined);
const states = {
  serving,
  'refused just now': { ...serving, last: 'refused', refusedAt: NOW - 1000, refusal: 'no' },
  'refused long enough ago': { ...serving, last: 'refused', refusedAt: NOW - 5000, refusal: 'no' },
  'refused, not answered since': {
    ...serving,
    ...{ key: 'unreachable', last: 'unreachable', unreachableAt: NOW - MINUTE, failures: 3 },
    ...{ refusedAt: NOW - REFUSAL_STANDS_MS, refusal: 'no' },
  },
  'refused, damaged since': {
    ...serving,
    ...{ key: 'damaged', last: 'damaged', refusedAt: NOW - REFUSAL_STANDS_MS, refusal: 'no' },
  },
  'unreachable in grace': {
    ...serving,
    ...{ key: 'unreachable', last: 'unreachable', unreachableAt: NOW - MINUTE, failures: 3 },
  },
  'unreachable past grace': {
    ...serving,
    ...{ key: 'unreachable', last: 'unreachable', unreachableAt: NOW - policy.graceMs, failures: 9 },
  },
  damaged: { ...serving, key: 'damaged', last: 'damaged' },
  waiting: firstState('waiting', 'unreachable', 'no route'),
  'stopped, invalid': firstState('stopped', 'invalid', 'disabled'),
  'stopped, unreachable': firstState('stopped', 'unreachable', 'no route'),
  'stopped, damaged': firstState('stopped', 'damaged', 'not its key'),
  'stopped, valid again': firstState('stopped', 'valid', undefined),
} satisfies Record<string, WatchState>;
type StateName = keyof typeof states;

/** state x answer -> phase, key, action. */
const TABLE: readonly [StateName, AnswerName, WatchPhase, WatchState['key'], string][] = [
  ['serving', 'valid', 'serving', 'valid', 'none'],
  ['serving', 'refused', 'serving', 'valid', 'none'],
  ['serving', 'unreachable', 'serving', 'unreachable', 'none'],
  ['serving', 'damaged', 'serving', 'damaged', 'none'],
  ['refused just now', 'valid', 'serving', 'valid', 'none'],
  ['refused just now', 'refused', 'serving', 'valid', 'none'],
  ['refused just now', 'unreachable', 'serving', 'unreachable', 'none'],
  ['refused just now', 'damaged', 'serving', 'damaged', 'none'],
  ['refused long enough ago', 'valid', 'serving', 'valid', 'none'],
  ['refused long enough ago', 'refused', 'stopped', 'invalid', 'stop'],
  ['refused long enough ago', 'unreachable', 'serving', 'unreachable', 'none'],
  ['refused long enough ago', 'damaged', 'serving', 'damaged', 'none'],
  ['refused, not answered since', 'valid', 'serving', 'valid', 'none'],
  ['refused, not answered since', 'refused', 'stopped', 'invalid', 'stop'],
  ['refused, not answered since', 'unreachable', 'stopped', 'invalid', 'stop'],
  ['refused, not answered since', 'damaged', 'stopped', 'invalid', 'stop'],
  ['refused, damaged since', 'valid', 'serving', 'valid', 'none'],
  ['refused, damaged since', 'refused', 'stopped', 'invalid', 'stop'],
  ['refused, damaged since', 'unreachable', 'stopped', 'invalid', 'stop'],
  ['refused, damaged since', 'damaged', 'stopped', 'invalid', 'stop'],
  ['unreachable in grace', 'valid', 'serving', 'valid', 'none'],
  ['unreachable in grace', 'refused', 'serving', 'unreachable', 'none'],
  ['unreachable in grace', 'unreachable', 'serving', 'unreachable', 'none'],
  ['unreachable in grace', 'damaged', 'serving', 'damaged', 'none'],
  ['unreachable past grace', 'valid', 'serving', 'valid', 'none'],
  ['unreachable past grace', 'refused', 'serving', 'unreachable', 'none'],
  ['unreachable past grace', 'unreachable', 'stopped', 'unreachable', 'stop'],
  ['unreachable past grace', 'damaged', 'serving', 'damaged', 'none'],
  ['damaged', 'valid', 'serving', 'valid', 'none'],
  ['damaged', 'refused', 'serving', 'damaged', 'none'],
  ['damaged', 'unreachable', 'serving', 'unreachable', 'none'],
  ['damaged', 'damaged', 'serving', 'damaged', 'none'],
  ['waiting', 'valid', 'waiting', 'valid', 'open'],
  ['waiting', 'refused', 'stopped', 'invalid', 'none'],
  ['waiting', 'unreachable', 'waiting', 'unreachable', 'none'],
  ['waiting', 'damaged', 'stopped', 'damaged', 'none'],
  ['stopped, invalid', 'valid', 'stopped', 'valid', 'none'],
  ['stopped, invalid', 'refused', 'stopped', 'invalid', 'none'],
  ['stopped, invalid', 'unreachable', 'stopped', 'unreachable', 'none'],
  ['stopped, invalid', 'damaged', 'stopped', 'damaged', 'none'],
  ['stopped, unreachable', 'valid', 'stopped', 'valid', 'none'],
  ['stopped, unreachable', 'refused', 'stopped', 'invalid', 'none'],
  ['stopped, unreachable', 'unreachable', 'stopped', 'unreachable', 'none'],
  ['stopped, unreachable', 'damaged', 'stopped', 'damaged', 'none'],
  ['stopped, damaged', 'valid', 'stopped', 'valid', 'none'],
  ['stopped, damaged', 'refused', 'stopped', 'invalid', 'none'],
  ['stopped, damaged', 'unreachable', 'stopped', 'unreachable', 'none'],
  ['stopped, damaged', 'damaged', 'stopped', 'damaged', 'none'],
  ['stopped, valid again', 'valid', 'stopped', 'valid', 'none'],
  ['stopped, valid again', 'refused', 'stopped', 'invalid', 'none'],
  ['stopped, valid again', 'unreachable', 'stopped', 'unreachable', 'none'],
  ['stopped, valid again', 'damaged', 'stopped', 'damaged', 'none'],
];

describe('the watchdog decides', () => {
  it('about every answer in every state', () => {
    const covered = new Set(TABLE.map(([state, name]) => `${state} / ${name}`));
    expect(covered.size).toBe(Object.keys(states).length * Object.keys(answers).length);
  });

  it.each(TABLE)('%s, %s -> %s, %s, %s', (stateName, answerName, phase, key, action) => {
    const step = next(states[stateName], answers[answerName], NOW, policy);
    expect([step.state.phase, step.state.key, step.action]).toEqual([phase, key, action]);
    expect(step.state.last).toBe(answerName);
    if (answerName === 'valid') expect(step.state.reason).toBeUndefined();
    else expect(step.state.reason).toContain(`it is ${answerName}`);
  });

  it.each(TABLE)(
    'with resume: auto nothing else than the opening differs: %s, %s',
    (stateName, answerName) => {
      const manual = next(states[stateName], answers[answerName], NOW, policy);
      const automatic = next(states[stateName], answers[answerName], NOW, auto);
      expect(automatic.state).toEqual(manual.state);
      const opens = answerName === 'valid' && states[stateName].phase !== 'serving';
      expect(automatic.action).toBe(opens ? 'open' : manual.action);
    },
  );

  it.each(Object.keys(states) as StateName[])('a valid answer clears everything: %s', (name) => {
    const { state } = next(states[name], VALID, NOW, policy);
    expect(state).toEqual(firstState(states[name].phase, 'valid', undefined));
    expect(graceEndsAt(state, policy)).toBeUndefined();
  });

  it('with a grace period of 0 the first unreachable answer stops', () => {
    expect(next(serving, answers.unreachable, NOW, { ...policy, graceMs: 0 }).action).toBe('stop');
  });

  it('nothing but a valid answer puts off a stop', () => {
    let state = next(serving, answers.refused, NOW, policy).state;
    state = next(state, answers.unreachable, NOW + 1000, policy).state;
    state = next(state, answers.damaged, NOW + 2000, policy).state;
    expect(next(state, answers.refused, NOW + 5000, policy).action).toBe('stop');
    expect(next(state, answers.unreachable, NOW + 1000 + policy.graceMs, policy).action).toBe('stop');
    state = next(state, VALID, NOW + 3000, policy).state;
    expect(next(state, answers.refused, NOW + 5000, policy).action).toBe('none');
    expect(next(state, answers.unreachable, NOW + 1000 + policy.graceMs, policy).action).toBe('none');
  });
});

describe('after a refusal that no valid answer contradicts', () => {
  /** When it stops, in ms after the refusal, where `then` is the answer to every later check. */
  const stopsAfter = (then: readonly AnswerName[], change: Partial<WatchPolicy> = {}): number | undefined => {
    const given = { ...policy, ...change };
    let state = next(serving, answers.refused, NOW, given).state;
    for (let now = NOW, checks = 0; now < NOW + 72 * 60 * MINUTE; checks += 1) {
      now += Math.max(1, delayToNext(state, now, given, 0.999));
      const step = next(state, answers[then[checks % then.length]], now, given);
      if (step.action === 'stop') {
        expect([step.state.key, step.state.reason]).toEqual([
          'invalid',
          expect.stringContaining('it is refused'),
        ]);
        return now - NOW;
      }
      state = step.state;
    }
    return undefined;
  };

  it.each([
    { later: ['unreachable'] },
    { later: ['damaged'] },
    { later: ['damaged', 'unreachable'] },
    { later: ['unreachable', 'unreachable', 'damaged'] },
  ] as const)('$later does not keep it serving longer than REFUSAL_STANDS_MS', ({ later }) => {
    const after = stopsAfter(later)!;
    expect(after).toBeGreaterThanOrEqual(REFUSAL_STANDS_MS);
    expect(after).toBeLessThan(REFUSAL_STANDS_MS + 10);
  });

  it('the countdown that is shown ends when it stops', () => {
    const refused = next(serving, answers.refused, NOW, policy).state;
    for (const then of ['unreachable', 'damaged'] as const) {
      const { state } = next(refused, answers[then], NOW + 5000, policy);
      expect(graceEndsAt(state, policy)).toBe(NOW + REFUSAL_STANDS_MS);
    }
  });

  it('a shorter grace period still counts', () => {
    let { state } = next(serving, answers.refused, NOW, policy);
    state = next(state, answers.unreachable, NOW + 5000, { ...policy, graceMs: 1000 }).state;
    expect(graceEndsAt(state, { ...policy, graceMs: 1000 })).toBe(NOW + 6000);
  });

  it('a valid answer on the way lets an outage have its whole grace period again', () => {
    let { state } = next(serving, answers.refused, NOW, policy);
    state = next(state, VALID, NOW + 5000, policy).state;
    state = next(state, answers.unreachable, NOW + 6000, policy).state;
    expect(next(state, answers.unreachable, NOW + 5999 + policy.graceMs, policy).action).toBe('none');
  });

  it('an outage without a refusal does not stop it before its grace period ends', () => {
    let state: WatchState = serving;
    for (let now = NOW; now < NOW + policy.graceMs; now += MINUTE) {
      const step = next(state, answers.unreachable, now, policy);
      expect(step.action).toBe('none');
      state = step.state;
    }
    expect(next(state, answers.unreachable, NOW + policy.graceMs, policy).action).toBe('stop');
  });
});

describe('the next check', () => {
  const delay = (state: WatchState, uniform: number, now = NOW) => delayToNext(state, now, policy, uniform);

  it('comes after the interval, give or take a tenth', () => {
    for (const name of ['serving', 'damaged', 'stopped, invalid', 'stopped, valid again'] as const) {
      expect(delay(states[name], 0)).toBeCloseTo(9 * MINUTE);
      expect(delay(states[name], 0.5)).toBeCloseTo(10 * MINUTE);
      expect(delay(states[name], 0.999999)).toBeLessThanOrEqual(11 * MINUTE);
    }
  });

  it('comes when a refusal can be confirmed', () => {
    expect(delay(states['refused just now'], 0.5)).toBe(4000);
    expect(delay(states['refused long enough ago'], 0.5)).toBe(0);
  });

  it('backs off from an unreachable service, spread and bounded', () => {
    const after = (failures: number, uniform: number) =>
      delay({ ...states['unreachable in grace'], failures }, uniform);
    expect([1, 2, 3, 4].map((failures) => after(failures, 1))).toEqual([2000, 4000, 8000, 16_000]);
    expect(after(1, 0)).toBe(KEY_RETRY_MIN_MS / 2);
    expect(after(100_000, 1)).toBe(KEY_RETRY_MAX_MS);
    expect(after(100_000, 0)).toBe(KEY_RETRY_MAX_MS / 2);
    const often = { ...policy, intervalMs: 1000 };
    expect(delayToNext(states['stopped, unreachable'], NOW, often, 1)).toBe(1000);
  });

  it('comes at the end of the grace period at the latest', () => {
    const state: WatchState = { ...states['unreachable in grace'], failures: 99 };
    const end = graceEndsAt(state, policy)!;
    expect(end).toBe(NOW - MINUTE + policy.graceMs);
    expect(delay(state, 1, end - 500)).toBe(500);
    expect(delay(state, 1, end + 500)).toBe(0);
  });

  it('counts no grace down for a volume that is not served', () => {
    for (const name of ['waiting', 'stopped, unreachable', 'damaged'] as const)
      expect(graceEndsAt(states[name], policy)).toBeUndefined();
  });
});
