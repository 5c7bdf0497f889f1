/**
 * What the watchdog decides: a state and an answer of the key service give the next state and what to do. No clock,
 * no timer, no I/O. `now` is monotonic milliseconds.
 *
 * | answer      | serving                                     | waiting            | stopped                     |
 * | ----------- | ------------------------------------------- | ------------------ | --------------------------- |
 * | valid       | valid, all forgotten                        | valid, open        | valid, open if resume: auto |
 * | refused     | once: ask again after `confirmMs`, go on    | invalid, stopped   | invalid                     |
 * |             | again, `confirmMs` later: invalid, stop     |                    |                             |
 * | unreachable | unreachable, retry; since `graceMs`: stop   | unreachable, retry | unreachable, retry          |
 * | damaged     | damaged, goes on                            | damaged, stopped   | damaged                     |
 *
 * A `damaged` answer does not stop a volume: it says that the stored wrap belongs to another key or context, not that
 * the right to the key was taken away. The key in memory was proven when the volume opened, and may be the last good
 * copy: wiping it could lose the data for ever, and a wrap can be made anew from it.
 *
 * Only a valid answer makes forget a refusal or the start of an outage. So who mixes other answers in does not put off
 * a stop.
 */
import { KEY_RETRY_MAX_MS, KEY_RETRY_MIN_MS } from '../base/limits.js';
import { formatDuration } from '../base/units.js';
import type { KeyAnswer } from './key-answer.js';

export type KeyState = 'valid' | 'unreachable' | 'invalid' | 'damaged';

/**
 * serving: the volume is open. stopped: its key failed it, an operator's start (or resume: auto) opens it. waiting: at
 * the daemon's start the service could not be reached; nothing was taken away, so the first good answer opens it.
 */
export type WatchPhase = 'serving' | 'waiting' | 'stopped';

export interface WatchState {
  readonly phase: WatchPhase;
  readonly key: KeyState;
  readonly reason: string | undefined;
  readonly last: KeyAnswer['kind'];
  /** Of the first refusal that is not forgotten. */
  readonly refusedAt: number | undefined;
  /** Of the first unanswered check that is not forgotten. */
  readonly unreachableAt: number | undefined;
  /** Unanswered checks in a row. */
  readonly failures: number;
}

export interface WatchPolicy {
  readonly intervalMs: number;
  readonly graceMs: number;
  readonly confirmMs: number;
  readonly resume: 'manual' | 'auto';
}

export type WatchAction = 'none' | 'stop' | 'open';

export interface WatchStep {
  readonly state: WatchState;
  readonly action: WatchAction;
}

const LAST_ANSWER = {
  valid: 'valid',
  unreachable: 'unreachable',
  invalid: 'refused',
  damaged: 'damaged',
} as const;

/** What is known when watching begins: how the volume was opened, or why it was not. */
export function firstState(phase: WatchPhase, key: KeyState, reason: string | undefined): WatchState {
  const last = LAST_ANSWER[key];
  const failures = last === 'unreachable' ? 1 : 0;
  return { phase, key, reason, last, refusedAt: undefined, unreachableAt: undefined, failures };
}

export function next(state: WatchState, answer: KeyAnswer, now: number, policy: WatchPolicy): WatchStep {
  switch (answer.kind) {
    case 'valid':
      return afterValid(state, policy);
    case 'refused':
      return afterRefused(state, answer.reason, now, policy);
    case 'unreachable':
      return afterUnreachable(state, answer.reason, now, policy);
    case 'damaged': {
      const { reason, kind: last } = answer;
      return go({ ...state, phase: noLongerWaiting(state), key: 'damaged', reason, last, failures: 0 });
    }
  }
}

function afterValid(state: WatchState, policy: WatchPolicy): WatchStep {
  const opens = state.phase === 'waiting' || (state.phase === 'stopped' && policy.resume === 'auto');
  return go(firstState(state.phase, 'valid', undefined), opens ? 'open' : 'none');
}

function afterRefused(state: WatchState, why: string, now: number, policy: WatchPolicy): WatchStep {
  const refusedAt = state.refusedAt ?? now;
  const seen: WatchState = { ...state, last: 'refused', refusedAt, failures: 0 };
  if (state.phase !== 'serving') return go({ ...seen, phase: 'stopped', key: 'invalid', reason: why });
  if (state.refusedAt !== undefined && now - refusedAt >= policy.confirmMs)
    return go({ ...seen, phase: 'stopped', key: 'invalid', reason: why }, 'stop');
  return go({ ...seen, reason: `refused, to be confirmed: ${why}` });
}

function afterUnreachable(state: WatchState, why: string, now: number, policy: WatchPolicy): WatchStep {
  const unreachableAt = state.unreachableAt ?? now;
  const failures = state.failures + 1;
  const seen: WatchState = {
    ...state,
    ...{ key: 'unreachable', reason: why, last: 'unreachable', unreachableAt, failures },
  };
  if (state.phase !== 'serving' || now - unreachableAt < policy.graceMs) return go(seen);
  const reason = `not reachable for the grace period of ${formatDuration(policy.graceMs)}: ${why}`;
  return go({ ...seen, phase: 'stopped', reason }, 'stop');
}

function noLongerWaiting(state: WatchState): WatchPhase {
  return state.phase === 'waiting' ? 'stopped' : state.phase;
}

function go(state: WatchState, action: WatchAction = 'none'): WatchStep {
  return { state, action };
}

/** When the countdown ends; undefined where none runs. */
export function graceEndsAt(state: WatchState, policy: WatchPolicy): number | undefined {
  if (state.phase !== 'serving' || state.last !== 'unreachable' || state.unreachableAt === undefined)
    return undefined;
  return state.unreachableAt + policy.graceMs;
}

/** Milliseconds to the next check; `uniform` is random in [0, 1). */
export function delayToNext(state: WatchState, now: number, policy: WatchPolicy, uniform: number): number {
  if (state.last === 'refused' && state.phase === 'serving' && state.refusedAt !== undefined)
    return Math.max(0, state.refusedAt + policy.confirmMs - now);
  if (state.last !== 'unreachable') return policy.intervalMs * (0.9 + 0.2 * uniform);
  // Doubling, and spread over half of the span, so that many volumes do not come back at once.
  const doubled = Math.min(KEY_RETRY_MAX_MS, KEY_RETRY_MIN_MS * 2 ** Math.min(state.failures - 1, 16));
  const retry = Math.min(doubled, policy.intervalMs) * (0.5 + 0.5 * uniform);
  const end = graceEndsAt(state, policy);
  return end === undefined ? retry : Math.max(0, Math.min(retry, end - now));
}
