/**
 * Puts the DEKs of a volume under another KMS key, or anew under the same one. The DEKs stay as they are, and so does the
 * data. Nothing is forgotten before the new wraps lie on the disk, were read back from it and unwrapped to the very keys
 * in use.
 *
 * | the key that wraps a DEK now | the DEK is ...                                                                    |
 * | ---------------------------- | --------------------------------------------------------------------------------- |
 * | valid                        | rewrapped by the key service, where it can without giving the DEK out              |
 * | refused or unreachable       | left alone: who took a key away must not find the volume under another one         |
 * | damaged                      | wrapped anew from its slot, where that key itself still wraps and unwraps: a stored |
 * |                              | wrap that does not open says nothing about the right to use the key                |
 */
import type { Clock } from '../base/clock.js';
import { SealbdError } from '../base/errors.js';
import { type KeyProvider, KmsError, type WrapContext, type WrappedKey } from '../kms/provider.js';
import type { KeyProviders } from '../kms/registry.js';
import type { KeyHandle } from '../native/addon.js';
import { openRecorded } from './header-unwrap.js';
import { ask } from './key-answer.js';
import type { DekRecord, Superblock } from './superblock.js';
import type { VolumeHeader } from './volume-header.js';

const PRESENT_KEY = 'nothing was changed, since the key in use now must be usable for that';
const NEW_WRAP = 'nothing was changed, since the new wrap of the DEK does not open';

export interface KeyServices {
  readonly providers: KeyProviders;
  readonly clock: Clock;
}

/** USAGE where the URI is malformed, a KmsError where one of the keys can't be used: then nothing has changed. */
export async function moveToKey(header: VolumeHeader, keyUri: string, services: KeyServices): Promise<void> {
  await replaceWraps(header, services, () => keyUri);
}

/**
 * The same keys, newest version. CONFLICT where a URI is an alias that names another key now: moving there is to be asked
 * for.
 */
export async function rewrapUnderSameKey(header: VolumeHeader, services: KeyServices): Promise<void> {
  const { deks } = header.superblock;
  for (const uri of new Set(deks.map((dek) => dek.keyUri))) {
    const { resolvedKeyId } = await ask(services.clock, openRecorded(services.providers, uri).describe());
    for (const dek of deks) if (dek.keyUri === uri) assertSameKey(dek, resolvedKeyId);
  }
  await replaceWraps(header, services, (dek) => dek.keyUri, assertSameKey);
}

function assertSameKey({ keyUri, resolvedKeyId }: DekRecord, namedNow: string): void {
  if (namedNow === resolvedKeyId) return;
  throw new SealbdError(
    'CONFLICT',
    `${keyUri} now names ${namedNow}, and the DEKs are wrapped by ${resolvedKeyId}: "key set" moves to it`,
  );
}

async function replaceWraps(
  header: VolumeHeader,
  services: KeyServices,
  targetOf: (dek: DekRecord) => string,
  judge: (dek: DekRecord, resolvedKeyId: string) => void = () => undefined,
): Promise<void> {
  const { deks, uuid } = header.superblock;
  const next: DekRecord[] = [];
  for (const dek of deks) {
    const handle = header.deks.get(dek.id)!;
    const rewrapped = await rewrapDek(dek, handle, uuid, targetOf(dek), services);
    judge(dek, rewrapped.resolvedKeyId);
    next.push(rewrapped);
  }
  await header.update({ deks: next }, (written) => proveWraps(written, header.deks, services));
}

async function rewrapDek(
  dek: DekRecord,
  handle: KeyHandle,
  uuid: Uint8Array,
  keyUri: string,
  { providers, clock }: KeyServices,
): Promise<DekRecord> {
  const to = providers.open(keyUri);
  const from = openRecorded(providers, dek.keyUri);
  const fromContext = contextOf(dek, uuid);
  const present = await usableWrap(dek, handle, from, fromContext, clock);
  // Once exposed, always exposed: a copy of the directory from the time under `local:` opens it for ever.
  const exposed = dek.exposed || providers.exposes(keyUri);
  const context = { ...fromContext, exposed };
  const { blob: wrapped, ...key } = await ask(clock, to.rewrap(present, from, fromContext, context));
  return { ...dek, exposed, keyUri, ...key, wrapped };
}

/** A wrap that the present key opens now. */
async function usableWrap(
  dek: DekRecord,
  handle: KeyHandle,
  from: KeyProvider,
  context: WrapContext,
  clock: Clock,
): Promise<WrappedKey> {
  const stored = wrapOf(dek);
  try {
    await ask(clock, from.check(stored, context, handle));
    return stored;
  } catch (error) {
    if (!(error instanceof KmsError) || error.kind !== 'damaged') throw explained(error, PRESENT_KEY);
  }
  try {
    const fresh = await ask(clock, from.wrap(handle, context));
    if (fresh.resolvedKeyId !== stored.resolvedKeyId)
      throw new KmsError(
        'refused',
        `${dek.keyUri} is now ${fresh.resolvedKeyId}, not ${stored.resolvedKeyId}`,
      );
    await ask(clock, from.check(fresh, context, handle));
    return fresh;
  } catch (error) {
    throw explained(error, PRESENT_KEY);
  }
}

/** Every wrap, as it lies on the disk, opens to the DEK in the slot. */
async function proveWraps(
  { deks, uuid }: Superblock,
  handles: ReadonlyMap<number, KeyHandle>,
  { providers, clock }: KeyServices,
): Promise<void> {
  for (const dek of deks) {
    const provider = openRecorded(providers, dek.keyUri);
    try {
      await ask(clock, provider.check(wrapOf(dek), contextOf(dek, uuid), handles.get(dek.id)!));
    } catch (error) {
      throw explained(error, NEW_WRAP);
    }
  }
}

function explained(error: unknown, what: string): unknown {
  return error instanceof KmsError ? new KmsError(error.kind, `${what}: ${error.message}`, error) : error;
}

function contextOf({ id, exposed }: DekRecord, volumeUuid: Uint8Array): WrapContext {
  return { volumeUuid, dekId: id, exposed };
}

function wrapOf({ wrapped: blob, resolvedKeyId, keyVersion }: DekRecord): WrappedKey {
  return { blob, resolvedKeyId, keyVersion };
}
