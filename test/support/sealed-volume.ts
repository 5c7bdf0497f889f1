/** A volume as the daemon opens it: superblock, keyring, engine, in one data directory; without NBD and admin. */
import { join } from 'node:path';
import { systemClock } from '../../src/base/clock.js';
import { type Logger, nullLogger } from '../../src/base/log.js';
import type { CipherPool } from '../../src/cipher/cipher-pool.js';
import { finishSwitch, type KeyIdentity } from '../../src/daemon/dek-rotation.js';
import { openSized } from '../../src/daemon/open-sized.js';
import type { HeaderPins } from '../../src/keys/header-unwrap.js';
import { systemRandom } from '../../src/keys/random.js';
import { VolumeHeader } from '../../src/keys/volume-header.js';
import type { Arena } from '../../src/native/arena.js';
import type { SuiteId } from '../../src/segment/format.js';
import { FsStore } from '../../src/store/fs-store.js';
import type { Store } from '../../src/store/store.js';
import type { VolumeTuning } from '../../src/volume/tuning.js';
import { Volume } from '../../src/volume/volume.js';
import { keyProviders } from './key-fixtures.js';
import { BLOCK } from './volume-harness.js';

export interface SealedOptions {
  readonly dataDirectory: string;
  readonly cipher: CipherPool;
  readonly tuning: Partial<VolumeTuning>;
  readonly pins?: HeaderPins;
  readonly log?: Logger;
}

export class SealedVolume {
  readonly header: VolumeHeader;
  readonly volume: Volume;

  private constructor(header: VolumeHeader, volume: Volume) {
    this.header = header;
    this.volume = volume;
  }

  /** A new volume in `store`, under local:default where no key is named. */
  static async create(
    options: SealedOptions & {
      readonly store: Store;
      readonly suite: SuiteId;
      readonly blocks: number;
      readonly keyUri?: string;
    },
  ): Promise<SealedVolume> {
    const { store, suite, keyUri = 'local:default' } = options;
    const header = await VolumeHeader.create({
      store,
      suite,
      providers: keyProviders(options.dataDirectory),
      clock: systemClock,
      random: systemRandom,
      sizeBytes: options.blocks * BLOCK,
      keyUri,
    });
    return SealedVolume.#serve(header, store, options, true);
  }

  /** Opens what lies in `path`, as a start of the daemon would; leaves no key behind where that fails. */
  static async open(path: string, options: SealedOptions, given?: Store): Promise<SealedVolume> {
    const store = given ?? (await FsStore.open(path));
    const { dataDirectory, pins = {}, log = nullLogger } = options;
    const header = await VolumeHeader.open({ store, providers: keyProviders(dataDirectory), pins, log });
    return SealedVolume.#serve(header, store, options, false);
  }

  static async #serve(
    header: VolumeHeader,
    store: Store,
    options: SealedOptions,
    fresh: boolean,
  ): Promise<SealedVolume> {
    const { cipher, tuning, log = nullLogger } = options;
    const shared = { name: 'v', store, cipher, clock: systemClock, log, tuning, fresh };
    try {
      const open = (identity: KeyIdentity) => Volume.open({ ...identity, ...shared });
      const volume = await openSized(header, { store, log, open });
      await finishSwitch(header, volume);
      return new SealedVolume(header, volume);
    } catch (error) {
      header.revoke();
      throw error;
    }
  }

  async write(io: Arena, lba: number, ...blocks: Uint8Array[]): Promise<void> {
    blocks.forEach((block, i) => {
      io.bytes.set(block, i * BLOCK);
    });
    await this.volume.write(io, 0, lba * BLOCK, blocks.length * BLOCK);
  }

  async read(io: Arena, lba: number): Promise<Uint8Array> {
    await this.volume.read(io, 0, lba * BLOCK, BLOCK);
    return io.bytes.slice(0, BLOCK);
  }

  async stop(): Promise<void> {
    await this.volume.stop(10_000);
    this.header.revoke();
  }
}

export function volumePath(dataDirectory: string, name = 'v'): string {
  return join(dataDirectory, 'volumes', name);
}
