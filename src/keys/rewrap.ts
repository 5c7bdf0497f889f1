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

const PRESENT_KEY = 'the DEKs stay where they are, since the key in use now must be usable for that';
const NEW_WRAP = 'the DEKs stay where they are, since the new wrap of one does not open';

export interface KeyServices {
  readonly providers: KeyProviders;
  readonly clock: Clock;
}

/** A superblock with its DEKs unwrapped, and the way to replace it. */
export type RewrapTarget = Pick<VolumeHeader, 'superblock' | 'deks' | 'update'>;

interface Rewrap {
  /** Which DEKs are wrapped anew. */
  readonly concerns: (dek: DekRecord) => boolean;
  readonly targetOf: (dek: DekRecord) => string;
  /** Throws where the key that did it is not the right one. */
  readonly judge: (dek: DekRecord, resolvedKeyId: string) => void;
  readonly expose: boolean;
}

/**
 * USAGE where the URI is malformed, a KmsError where one of the keys can't be used: then nothing has changed, except that
 * on the way to a `local:` key the DEKs may be marked as exposed already.
 */
export async function moveToKey(header: RewrapTarget, keyUri: string, services: KeyServices): Promise<void> {
  const { providers, clock } = services;
  const unmarked = header.superblock.deks.filter((dek) => !dek.exposed);
  if (providers.exposes(keyUri) && unmarked.length > 0) {
    // Nothing is marked for the sake of a key that is not there.
    await ask(clock, providers.open(keyUri).describe());
    await markExposed(header, new Set(unmarked.map((dek) => dek.id)), services);
  }
  const anyKey = () => undefined;
  const move = { concerns: () => true, targetOf: () => keyUri, judge: anyKey, expose: false };
  await replaceWraps(header, services, move);
}

/**
 * Marks DEKs as exposed under the key that wraps them now, for good. A wrap by a key that lies beside the data gives a DEK
 * away from the moment it is on the disk, whatever becomes of the move; so this is durable before that is written.
 */
export async function markExposed(
  header: RewrapTarget,
  ids: ReadonlySet<number>,
  services: KeyServices,
): Promise<void> {
  await replaceWraps(header, services, {
    concerns: (dek) => ids.has(dek.id),
    targetOf: (dek) => dek.keyUri,
    judge: assertSameKey,
    expose: true,
  });
}

/**
 * The same keys, newest version. CONFLICT where a URI is an alias that names another key now: moving there is to be asked
 * for.
 */
export async function rewrapUnderSameKey(header: RewrapTarget, services: KeyServices): Promise<void> {
  const { deks } = header.superblock;
  for (const uri of new Set(deks.map((dek) => dek.keyUri))) {
    const { resolvedKeyId } = await ask(services.clock, openRecorded(services.providers, uri).describe());
    for (const dek of deks) if (dek.keyUri === uri) assertSameKey(dek, resolvedKeyId);
  }
  const same = { concerns: () => true, targetOf: (dek: DekRecord) => dek.keyUri, judge: assertSameKey };
  await replaceWraps(header, services, { ...same, expose: false });
}

function assertSameKey({ keyUri, resolvedKeyId }: DekRecord, namedNow: string): void {
  if (namedNow === resolvedKeyId) return;
  throw new SealbdError(
    'CONFLICT',
    `${keyUri} now names ${namedNow}, and the DEKs are wrapped by ${resolvedKeyId}: "key set" moves to it`,
  );
}

async function replaceWraps(header: RewrapTarget, services: KeyServices, rewrap: Rewrap): Promise<void> {
  const { deks, uuid } = header.superblock;
  const next: DekRecord[] = [];
  for (const dek of deks) {
    const isConcerned = rewrap.concerns(dek);
    next.push(isConcerned ? await rewrapDek(dek, header.deks.get(dek.id)!, uuid, rewrap, services) : dek);
  }
  await header.update({ deks: next }, (written) => proveWraps(written, header.deks, services));
}

async function rewrapDek(
  dek: DekRecord,
  handle: KeyHandle,
  uuid: Uint8Array,
  { targetOf, judge, expose }: Rewrap,
  { providers, clock }: KeyServices,
): Promise<DekRecord> {
  const keyUri = targetOf(dek);
  const to = providers.open(keyUri);
  const from = openRecorded(providers, dek.keyUri);
  const fromContext = contextOf(dek, uuid);
  const present = await usableWrap(dek, handle, from, fromContext, clock);
  // Once exposed, always exposed: a copy of the directory from the time under `local:` opens it for ever.
  const exposed = dek.exposed || expose || providers.exposes(keyUri);
  const context = { ...fromContext, exposed };
  const { blob: wrapped, ...key } = await ask(clock, to.rewrap(present, from, fromContext, context));
  judge(dek, key.resolvedKeyId);
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
