/** The size that a volume has by its checkpoint root (docs/FORMAT.md): asked for where a rollback was cut. */
import type { Logger } from '../base/log.js';
import type { Store } from '../store/store.js';
import { readRoot } from './checkpoint-root.js';
import { VolumeKeys, type VolumeKeysOptions } from './volume-keys.js';

export interface RootSizeOptions extends VolumeKeysOptions {
  readonly store: Store;
  readonly uuid: Uint8Array;
  readonly log: Logger;
}

/** In bytes, of the copy that opening the volume takes. INTEGRITY where none authenticates. */
export async function rootSizeBytes(options: RootSizeOptions): Promise<number> {
  const { store, uuid, log } = options;
  const keys = new VolumeKeys(options);
  try {
    const { root } = await readRoot(store, uuid, keys, log);
    return root.sizeBytes;
  } finally {
    keys.release();
  }
}
