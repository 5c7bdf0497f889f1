/** From a decoded superblock to proven DEKs: pins, unwrap, check values, MAC, in this order. */

import { type Suite, suiteName } from '../base/ciphers.js';
import { SealbdError } from '../base/errors.js';
import { forEachLimited } from '../base/limited.js';
import { DEKS_ASKED_AT_ONCE } from '../base/limits.js';
import { formatUuid } from '../base/random.js';
import { type KeyProvider, KmsError, type WrapContext } from '../kms/provider.js';
import type { KeyProviders } from '../kms/registry.js';
import { addon, type KeyHandle, SUITE_NONE } from '../native/addon.js';
import { DekRing, withKeys } from './dek-ring.js';
import { ask } from './key-answer.js';
import {
  checkValueHolds,
  type DecodedSuperblock,
  type DekRecord,
  superblockAuthenticates,
} from './superblock.js';

/**
 * What the configuration says about a volume, so that who can write the disk can't substitute it. Only the key proves
 * anything: a uuid or a cipher pinned without it keeps mistakes out, not an attacker who brings a key of his own.
 */
export interface HeaderPins {
  readonly uuid?: string | undefined;
  readonly suite?: Suite | undefined;
  /** One of these wraps every DEK. More than one while the volume moves from key to key. */
  readonly keyUris?: readonly string[] | undefined;
}

/**
 * The DEKs of a superblock that is proven authentic. Pins are checked before any key service is asked. Throws
 * KmsError (key refused, unreachable or damaged) or INTEGRITY (pins, MAC); then no slot is left behind.
 */
export async function unwrapHeader(
  decoded: DecodedSuperblock,
  providers: KeyProviders,
  pins: HeaderPins,
): Promise<DekRing> {
  const { superblock } = decoded;
  assertPins(decoded, pins);
  const handles = new Map<number, KeyHandle>();
  try {
    await forEachLimited(superblock.deks, DEKS_ASKED_AT_ONCE, async (record) => {
      handles.set(record.id, await unwrapDek(superblock.uuid, record, providers));
    });
    assertAuthentic(decoded, handles);
    return new DekRing(handles);
  } catch (error) {
    for (const handle of handles.values()) addon.keyRelease(handle);
    throw error;
  }
}

/** INTEGRITY where the MAC is not that of the active DEK. */
export function assertAuthentic(decoded: DecodedSuperblock, handles: ReadonlyMap<number, KeyHandle>): void {
  if (withKeys(handles, (keyOf) => superblockAuthenticates(decoded, keyOf))) return;
  throw new SealbdError('INTEGRITY', 'superblock: it does not authenticate under its own DEK');
}

/** One DEK of the volume `uuid`. The caller owns the handle. KmsError where its key is refused, unreachable or damaged. */
export async function unwrapDek(
  uuid: Uint8Array,
  record: DekRecord,
  providers: KeyProviders,
): Promise<KeyHandle> {
  const context: WrapContext = { volumeUuid: uuid, dekId: record.id, exposed: record.exposed };
  const { resolvedKeyId, keyVersion, wrapped: blob } = record;
  const provider = openRecorded(providers, record.keyUri);
  const unwrapping = provider.unwrap({ blob, resolvedKeyId, keyVersion }, context);
  const handle = await ask(providers.clock, unwrapping).catch((error: unknown) => {
    // What comes too late is nobody's.
    unwrapping.then(
      (late) => addon.keyRelease(late),
      () => undefined,
    );
    throw error;
  });
  if (checkValueHolds(handle, uuid, record)) return handle;
  addon.keyRelease(handle);
  throw new KmsError(
    'damaged',
    `${record.keyUri} gave another key than DEK ${record.id}: its check value is wrong`,
  );
}

/** A URI on the disk that this program does not know is damage (or a newer program's), not bad usage. */
export function openRecorded(providers: KeyProviders, uri: string): KeyProvider {
  try {
    return providers.open(uri);
  } catch (error) {
    throw new KmsError('damaged', `the superblock names the key "${uri}"`, error);
  }
}

function assertPins({ superblock }: DecodedSuperblock, pins: HeaderPins): void {
  const fail = (what: string, wanted: string, found: string): never => {
    throw new SealbdError(
      'INTEGRITY',
      `the configuration pins ${what} ${wanted}, the superblock has ${found}`,
    );
  };
  const uuid = formatUuid(superblock.uuid);
  // Nothing proves a superblock under the public key, whatever suite it claims to be on its way to.
  const suite = superblock.activeDek === 0 ? SUITE_NONE : superblock.suite;
  if (pins.uuid !== undefined && pins.uuid.toLowerCase() !== uuid) fail('uuid', pins.uuid, uuid);
  if (pins.suite !== undefined && pins.suite !== suite) {
    fail('cipher', suiteName(pins.suite), suiteName(suite));
  }
  // Anybody can make a `none` superblock, of any uuid: one that is not expected in so many words satisfies no pin.
  if (suite === SUITE_NONE && pins.suite === undefined && pins.uuid !== undefined) {
    fail('uuid', `${pins.uuid} and no cipher`, 'the cipher none, which proves no uuid');
  }
  const { keyUris } = pins;
  if (keyUris === undefined) return;
  if (suite === SUITE_NONE) fail('key', keyUris.join(' or '), 'none');
  for (const { keyUri } of superblock.deks)
    if (!keyUris.includes(keyUri)) fail('key', keyUris.join(' or '), keyUri);
}
