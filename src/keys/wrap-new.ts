/** Wraps DEKs that were just made. */
import type { Clock } from '../base/clock.js';
import { SealbdError } from '../base/errors.js';
import type { KeyProviders } from '../kms/registry.js';
import type { KeyHandle } from '../native/addon.js';
import { ask } from './key-answer.js';
import { checkValueOf, type DekRecord } from './superblock.js';

/** An alias can be pointed elsewhere in silence: data must not move to another key unless somebody says so. */
export function assertSameKey(
  { keyUri, resolvedKeyId }: { readonly keyUri: string; readonly resolvedKeyId?: string },
  wrapped: { readonly resolvedKeyId: string },
): void {
  if (resolvedKeyId === undefined || resolvedKeyId === wrapped.resolvedKeyId) return;
  throw new SealbdError(
    'CONFLICT',
    `${keyUri} names ${wrapped.resolvedKeyId} now, not ${resolvedKeyId}; "sealbd key set" moves the volume there`,
  );
}

export interface WrapOptions {
  readonly providers: KeyProviders;
  readonly clock: Clock;
  readonly keyUri: string;
}

/** Wraps a new DEK, and opens the wrap again: nothing may depend on a copy that was never opened. */
export async function wrapNew(
  { providers, keyUri, clock }: WrapOptions,
  uuid: Uint8Array,
  id: number,
  handle: KeyHandle,
): Promise<Omit<DekRecord, 'state' | 'createdAt'>> {
  const provider = providers.open(keyUri);
  const exposed = providers.exposes(keyUri);
  const context = { volumeUuid: uuid, dekId: id, exposed };
  const wrapped = await ask(clock, provider.wrap(handle, context));
  await ask(clock, provider.check(wrapped, context, handle));
  const { blob, resolvedKeyId, keyVersion } = wrapped;
  const checkValue = checkValueOf(handle, uuid, id);
  return { id, exposed, checkValue, keyUri, resolvedKeyId, keyVersion, wrapped: blob };
}
