/** What a key service says about the DEKs of one volume, as one answer. */
import { type Clock, within } from '../base/clock.js';
import { isSealbdError, messageOf } from '../base/errors.js';
import { KEY_CHECK_TIMEOUT_MS } from '../base/limits.js';
import { formatDuration } from '../base/units.js';
import { KmsError, type KmsErrorKind } from '../kms/provider.js';
import type { KeyProviders } from '../kms/registry.js';
import type { KeyHandle } from '../native/addon.js';
import type { DekRecord, Superblock } from './superblock.js';

export type KeyAnswer = { readonly kind: 'valid' } | { readonly kind: KmsErrorKind; readonly reason: string };

/** What has to be done first counts: a refusal stops at once, an outage after a while, damage does not. */
const SEVERITY = { refused: 3, unreachable: 2, damaged: 1, valid: 0 } as const;
const VALID: KeyAnswer = { kind: 'valid' };

/** An error that is not the key service's says nothing about the key. */
export function answerOf(error: unknown): KeyAnswer {
  if (error instanceof KmsError) return { kind: error.kind, reason: error.message };
  if (isSealbdError(error, 'INTEGRITY')) return { kind: 'damaged', reason: error.message };
  return { kind: 'unreachable', reason: `the check failed: ${messageOf(error)}` };
}

/** Bounds a question to a key service; the late answer of one that hangs is dropped. */
export function ask<T>(clock: Clock, question: Promise<T>): Promise<T> {
  return within(clock, KEY_CHECK_TIMEOUT_MS, question, () => {
    return new KmsError('unreachable', `no answer in ${formatDuration(KEY_CHECK_TIMEOUT_MS)}`);
  });
}

/** Unwraps every DEK of an open volume and compares it, in the addon, with the one in its slot. Never rejects. */
export async function checkDeks(
  superblock: Superblock,
  handles: ReadonlyMap<number, KeyHandle>,
  providers: KeyProviders,
  clock: Clock,
): Promise<KeyAnswer> {
  const byUri = new Map<string, DekRecord[]>();
  for (const dek of superblock.deks) byUri.set(dek.keyUri, [...(byUri.get(dek.keyUri) ?? []), dek]);
  const questions = [...byUri].map(([uri, deks]) => {
    return checkUnder(uri, deks, superblock.uuid, handles, providers, clock);
  });
  const answers = await Promise.all(questions);
  return answers.reduce((worst, answer) => {
    return SEVERITY[answer.kind] > SEVERITY[worst.kind] ? answer : worst;
  }, VALID);
}

/** The DEKs of one KMS key, one after another: the first failure speaks for that key. */
async function checkUnder(
  uri: string,
  deks: readonly DekRecord[],
  volumeUuid: Uint8Array,
  handles: ReadonlyMap<number, KeyHandle>,
  providers: KeyProviders,
  clock: Clock,
): Promise<KeyAnswer> {
  try {
    const provider = providers.open(uri);
    for (const { id, exposed, wrapped: blob, resolvedKeyId, keyVersion } of deks) {
      const context = { volumeUuid, dekId: id, exposed };
      await ask(clock, provider.check({ blob, resolvedKeyId, keyVersion }, context, handles.get(id)));
    }
    return VALID;
  } catch (error) {
    return describe(answerOf(error), uri, providers, clock);
  }
}

/** Adds what the service knows about the key to the reason, for people: disabled, or to be deleted when. */
async function describe(
  answer: KeyAnswer,
  uri: string,
  providers: KeyProviders,
  clock: Clock,
): Promise<KeyAnswer> {
  if (answer.kind === 'valid' || answer.kind === 'unreachable') return answer;
  try {
    const { detail } = await ask(clock, providers.open(uri).describe());
    return { kind: answer.kind, reason: `${answer.reason} (${detail})` };
  } catch {
    // The check has its answer. A key that is refused may well be hidden too.
    return answer;
  }
}
