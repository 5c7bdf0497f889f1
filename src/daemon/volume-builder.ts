/** Makes the files of a new volume in a directory that has no volume's name yet. */
import { suiteOf } from '../base/ciphers.js';
import type { Clock } from '../base/clock.js';
import { STOP_DEADLINE_MS } from '../base/limits.js';
import type { Logger } from '../base/log.js';
import type { RandomSource } from '../base/random.js';
import { VolumeHeader } from '../keys/volume-header.js';
import type { KeyProviders } from '../kms/registry.js';
import { FsStore } from '../store/fs-store.js';
import { identityOf } from './dek-rotation.js';
import type { Engine } from './engine.js';
import type { NewKeys } from './new-keys.js';
import type { VolumeFiles } from './volume-files.js';
import type { CreateVolumeRequest } from './volume-request.js';

export interface BuildDependencies {
  readonly engine: Engine;
  readonly providers: KeyProviders;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Logger;
}

/**
 * All or nothing: the volume is made in a directory of its own that gets its name when it is whole. `madeKey` learns of a
 * `local:` key that was made for it, which stays though the rest fails.
 */
export async function makeVolume(
  request: CreateVolumeRequest,
  keyUri: string,
  newKeys: NewKeys,
  dependencies: BuildDependencies & { readonly files: VolumeFiles },
  madeKey: (resolvedKeyId: string) => void,
): Promise<void> {
  const { files } = dependencies;
  const temporary = await files.makeTemporary(request.name);
  try {
    const build = () => buildVolume(temporary, request, keyUri, dependencies);
    await (request.cipher === 'none' ? build() : newKeys.during(keyUri, build, madeKey));
    await files.publish(temporary, request.name);
  } catch (error) {
    await files.discardTemporary(temporary);
    throw error;
  }
}

/** The first checkpoint is part of the volume, so that a missing one is damage from then on. */
async function buildVolume(
  path: string,
  request: CreateVolumeRequest,
  keyUri: string,
  dependencies: BuildDependencies,
): Promise<void> {
  const { providers, clock, random, engine } = dependencies;
  const { name, sizeBytes } = request;
  const log = dependencies.log.child({ volume: name });
  const store = await FsStore.open(path);
  const suite = suiteOf(request.cipher);
  const header = await VolumeHeader.create({ store, providers, clock, random, sizeBytes, suite, keyUri });
  try {
    const identity = { name, ...identityOf(header) };
    const device = await engine.open({ ...identity, store, clock, log, fresh: true });
    await device.stop(STOP_DEADLINE_MS);
  } finally {
    header.revoke();
  }
}
