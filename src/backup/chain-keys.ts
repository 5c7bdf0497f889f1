/** The DEKs of a chain of backups, proven: each opens, and each manifest authenticates. */
import { bytesEqual } from '../base/bytes.js';
import { SealbdError } from '../base/errors.js';
import { forEachLimited } from '../base/limited.js';
import { DEKS_ASKED_AT_ONCE } from '../base/limits.js';
import type { DekRecord } from '../keys/dek-record.js';
import { DekRing } from '../keys/dek-ring.js';
import { unwrapDek } from '../keys/header-unwrap.js';
import { KmsError } from '../kms/provider.js';
import type { KeyProviders } from '../kms/registry.js';
import { addon, type KeyHandle } from '../native/addon.js';
import type { BackupDirectory } from './backup-directory.js';
import { manifestAuthenticates } from './manifest.js';
import { damaged } from './names.js';

const PUBLIC_DEK = 0;

export interface ChainKeys {
  /** By DEK id; 0, the public key, where the chain has plaintext. */
  readonly handles: ReadonlyMap<number, KeyHandle>;
  /** Wipes them, for whoever uses them at that moment. They stay listed, dead. */
  release(): void;
}

/** Every DEK of the chain, by its newest wrap: who moved the volume to another key need not keep the old one for its backups. */
export function chainDeks(chain: readonly BackupDirectory[]): DekRecord[] {
  const newest = new Map<number, DekRecord>();
  for (const { manifest, path } of chain) {
    for (const dek of manifest.deks) {
      const known = newest.get(dek.id);
      if (known !== undefined && !bytesEqual(known.checkValue, dek.checkValue))
        throw damaged(path, `DEK ${dek.id} is another key than in its base`);
      newest.set(dek.id, dek);
    }
  }
  return [...newest.values()].sort((a, b) => a.id - b.id);
}

/** KmsError, naming the key, where one can't be used; INTEGRITY where a manifest does not authenticate. */
export async function openChainKeys(
  chain: readonly BackupDirectory[],
  providers: KeyProviders,
): Promise<ChainKeys> {
  const { uuid } = chain[chain.length - 1].manifest;
  const ring = new DekRing(new Map());
  try {
    if (chain.some(({ manifest }) => manifest.plain || manifest.suite === 0))
      ring.add(PUBLIC_DEK, addon.keyImport(new Uint8Array(32)));
    await forEachLimited(chainDeks(chain), DEKS_ASKED_AT_ONCE, async (dek) => {
      ring.add(dek.id, await named(dek, unwrapDek(uuid, dek, providers)));
    });
    for (const backup of chain) assertAuthentic(backup, ring.handles);
    return { handles: ring.handles, release: () => ring.revoke() };
  } catch (error) {
    ring.revoke();
    throw error;
  }
}

/** Says which key it is about. */
async function named<T>({ id, keyUri, resolvedKeyId }: DekRecord, unwrapping: Promise<T>): Promise<T> {
  try {
    return await unwrapping;
  } catch (error) {
    if (!(error instanceof KmsError)) throw error;
    const which = `the backup needs ${keyUri} (${resolvedKeyId}) for DEK ${id}`;
    throw new KmsError(error.kind, `${which}: ${error.message}`, error);
  }
}

function assertAuthentic(backup: BackupDirectory, handles: ReadonlyMap<number, KeyHandle>): void {
  const key = handles.get(backup.manifest.dekId);
  if (key === undefined || !manifestAuthenticates(backup.decoded, key))
    throw new SealbdError('INTEGRITY', `${backup.path}: the manifest does not authenticate`);
}
