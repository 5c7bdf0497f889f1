/**
 * What the watchdog decides: a state and an answer of the key service give the next state and what to do. No clock,
 * no timer, no I/O. `now` is monotonic milliseconds.
 *
 * | answer      | serving                                     | serving, and refused before | waiting            | stopped                     |
 * | ----------- | ------------------------------------------- | --------------------------- | ------------------ | --------------------------- |
 * | valid       | valid, all forgotten                        | the same                    | valid, open        | valid, open if resume: auto |
 * | refused     | ask again after `confirmMs`, go on          | `confirmMs` later: invalid, | invalid, stopped   | invalid                     |
 * |             |                                             | stop                        |                    |                             |
 * | unreachable | unreachable, retry; since `graceMs`: stop   | the same, but               | unreachable, retry | unreachable, retry          |
 * | damaged     | damaged, goes on                            | REFUSAL_STANDS_MS after the | damaged, stopped   | damaged                     |
 * |             |                                             | refusal: invalid, stop      |                    |                             |
 *
 * A `damaged` answer does not stop a volume: it says that the stored wrap belongs to another key or context, not that
 * the right to the key was taken away. The key in memory was proven when the volume opened, and may be the last good
 * copy: wiping it could lose the data for ever, and a wrap can be made anew from it.
 *
 * Only a valid answer makes forget a refusal or the start of an outage. So who mixes other answers in does not put off
 * a stop: neither who damages wraps, nor who cuts the network after the key was taken away, gains more than
 * REFUSAL_STANDS_MS once a refusal was heard.
 */
import {
  KEY_RETRY_MAX_MS,
  KEY_RETRY_MIN_MS,
  POLL_INTERVAL_MS,
  REFUSAL_STANDS_MS,
  REFUSED_CONFIRM_MS,
  UNREACHABLE_GRACE_MS,
} from '../base/limits.js';
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
  /** What that refusal said, or the last one after it. */
  readonly refusal: string | undefined;
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

/** Where nothing else is configured, and where no configuration is read. */
export const DEFAULT_WATCH: WatchPolicy = {
  intervalMs: POLL_INTERVAL_MS,
  graceMs: UNREACHABLE_GRACE_MS,
  confirmMs: REFUSED_CONFIRM_MS,
  resume: 'manual',
};

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
  const nothing = { refusedAt: undefined, refusal: undefined, unreachableAt: undefined };
  return { phase, key, reason, last, ...nothing, failures };
}

export function next(state: WatchState, answer: KeyAnswer, now: number, policy: WatchPolicy): WatchStep {
  switch (answer.kind) {
    case 'valid':
      return afterValid(state, policy);
    case 'refused':
      return afterRefused(state, answer.reason, now, policy);
    case 'unreachable':
      return afterUnreachable(state, answer.reason, now, policy);
    case 'damaged':
      return afterDamaged(state, answer.reason, now);
  }
}

function afterValid(state: WatchState, policy: WatchPolicy): WatchStep {
  const opens = state.phase === 'waiting' || (state.phase === 'stopped' && policy.resume === 'auto');
  return go(firstState(state.phase, 'valid', undefined), opens ? 'open' : 'none');
}

function afterRefused(state: WatchState, why: string, now: number, policy: WatchPolicy): WatchStep {
  const refusedAt = state.refusedAt ?? now;
  const seen: WatchState = { ...state, last: 'refused', refusedAt, refusal: why, failures: 0 };
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
  if (state.phase !== 'serving') return go(seen);
  if (now - unreachableAt >= policy.graceMs) {
    const reason = `not reachable for the grace period of ${formatDuration(policy.graceMs)}: ${why}`;
    return go({ ...seen, phase: 'stopped', reason }, 'stop');
  }
  return unlessRefusalStands(seen, why, now);
}

function afterDamaged(state: WatchState, reason: string, now: number): WatchStep {
  const phase = noLongerWaiting(state);
  const seen: WatchState = { ...state, phase, key: 'damaged', reason, last: 'damaged', failures: 0 };
  return phase === 'serving' ? unlessRefusalStands(seen, reason, now) : go(seen);
}

/** No answer, or one about something else, does not take a refusal back. */
function unlessRefusalStands(seen: WatchState, why: string, now: number): WatchStep {
  if (seen.refusedAt === undefined || now - seen.refusedAt < REFUSAL_STANDS_MS) return go(seen);
  const since = `refused, and not valid since, for ${formatDuration(REFUSAL_STANDS_MS)}`;
  const reason = `${since}: ${seen.refusal}; the last answer was: ${why}`;
  return go({ ...seen, phase: 'stopped', key: 'invalid', reason }, 'stop');
}

function noLongerWaiting(state: WatchState): WatchPhase {
  return state.phase === 'waiting' ? 'stopped' : state.phase;
}

function go(state: WatchState, action: WatchAction = 'none'): WatchStep {
  return { state, action };
}

/** When the countdown ends, unless a valid answer comes; undefined where none runs. */
export function graceEndsAt(state: WatchState, policy: WatchPolicy): number | undefined {
  const { phase, last, refusedAt, unreachableAt } = state;
  if (phase !== 'serving' || last === 'valid' || last === 'refused') return undefined;
  const ofRefusal = refusedAt === undefined ? undefined : refusedAt + REFUSAL_STANDS_MS;
  if (last === 'damaged' || unreachableAt === undefined) return ofRefusal;
  return Math.min(unreachableAt + policy.graceMs, ofRefusal ?? Number.POSITIVE_INFINITY);
}

/** Milliseconds to the next check; `uniform` is random in [0, 1). */
export function delayToNext(state: WatchState, now: number, policy: WatchPolicy, uniform: number): number {
  if (state.last === 'refused' && state.phase === 'serving' && state.refusedAt !== undefined)
    return Math.max(0, state.refusedAt + policy.confirmMs - now);
  const end = graceEndsAt(state, policy);
  if (state.last !== 'unreachable' && end === undefined) return policy.intervalMs * (0.9 + 0.2 * uniform);
  // Doubling, and spread over half of the span, so that many volumes do not come back at once.
  const doubled = KEY_RETRY_MIN_MS * 2 ** Math.min(state.failures - 1, 16);
  const spanMs = state.last === 'unreachable' ? Math.min(KEY_RETRY_MAX_MS, doubled) : KEY_RETRY_MAX_MS;
  const retry = Math.min(spanMs, policy.intervalMs) * (0.5 + 0.5 * uniform);
  return end === undefined ? retry : Math.max(0, Math.min(retry, end - now));
}
