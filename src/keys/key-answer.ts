/** What a key service says about the DEKs of one volume, as one answer. */
import { type Clock, within } from '../base/clock.js';
import { isSealbdError, messageOf } from '../base/errors.js';
import { forEachLimited } from '../base/limited.js';
import { DEKS_ASKED_AT_ONCE, KEY_CHECK_TIMEOUT_MS } from '../base/limits.js';
import { formatDuration } from '../base/units.js';
import { KmsError, type KmsErrorKind } from '../kms/provider.js';
import type { KeyProviders } from '../kms/registry.js';
import type { KeyHandle } from '../native/addon.js';
import type { DekRecord, Superblock } from './superblock.js';

type Failure = { readonly kind: KmsErrorKind; readonly reason: string };
export type KeyAnswer = { readonly kind: 'valid' } | Failure;

/** What has to be done first counts: a refusal stops at once, an outage after a while, damage does not. */
const SEVERITY = { refused: 3, unreachable: 2, damaged: 1 } as const;
const VALID: KeyAnswer = { kind: 'valid' };

/** An error that is not the key service's says nothing about the key. */
export function answerOf(error: unknown): Failure {
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

/**
 * Unwraps every DEK of an open volume, or of backups that are read, and compares it, in the addon, with the one in its slot. The worst answer speaks for
 * the volume: a damaged wrap of one DEK does not hide that another one is refused. Never rejects.
 */
export async function checkDeks(
  superblock: Pick<Superblock, 'uuid' | 'deks'>,
  handles: ReadonlyMap<number, KeyHandle>,
  providers: KeyProviders,
  clock: Clock,
): Promise<KeyAnswer> {
  const failures: { readonly answer: Failure; readonly dek: DekRecord }[] = [];
  await forEachLimited(superblock.deks, DEKS_ASKED_AT_ONCE, async (dek) => {
    // Nothing is worse than a refusal, which what follows need not wait for.
    if (failures.some((failure) => failure.answer.kind === 'refused')) return;
    // A service that hangs is not waited for a thousand times.
    const unanswered = failures.filter(
      (failure) => failure.answer.kind === 'unreachable' && failure.dek.keyUri === dek.keyUri,
    );
    if (unanswered.length >= DEKS_ASKED_AT_ONCE) return;
    const answer = await checkDek(dek, superblock.uuid, handles.get(dek.id), providers, clock);
    if (answer.kind !== 'valid') failures.push({ answer, dek });
  });
  const [worst] = failures.sort((a, b) => SEVERITY[b.answer.kind] - SEVERITY[a.answer.kind]);
  return worst === undefined ? VALID : describe(worst.answer, worst.dek, providers, clock);
}

async function checkDek(
  { id, keyUri, exposed, wrapped: blob, resolvedKeyId, keyVersion }: DekRecord,
  volumeUuid: Uint8Array,
  handle: KeyHandle | undefined,
  providers: KeyProviders,
  clock: Clock,
): Promise<KeyAnswer> {
  try {
    if (handle === undefined) throw new Error(`DEK ${id} is in no slot`);
    const context = { volumeUuid, dekId: id, exposed };
    await ask(clock, providers.open(keyUri).check({ blob, resolvedKeyId, keyVersion }, context, handle));
    return VALID;
  } catch (error) {
    return answerOf(error);
  }
}

/** Adds what the service knows about the key that wrapped the DEK to the reason, for people: disabled, or to be deleted when. */
export async function describe(
  answer: Failure,
  { keyUri, resolvedKeyId }: DekRecord,
  providers: KeyProviders,
  clock: Clock,
): Promise<KeyAnswer> {
  if (answer.kind === 'unreachable') return answer;
  try {
    const { detail } = await ask(clock, providers.open(keyUri).describe(resolvedKeyId));
    return { kind: answer.kind, reason: `${answer.reason} (${detail})` };
  } catch {
    // The check has its answer. A key that is refused may well be hidden too.
    return answer;
  }
}
