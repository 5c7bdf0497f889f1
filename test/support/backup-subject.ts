/** A small sealed volume with a random history that is known block for block, and backups of it. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { Manifest } from '../../src/backup/manifest.js';
import { systemClock } from '../../src/base/clock.js';
import type { CipherPool } from '../../src/cipher/cipher-pool.js';
import { dropOld, rotate } from '../../src/daemon/dek-rotation.js';
import { Arena } from '../../src/native/arena.js';
import type { SuiteId } from '../../src/segment/format.js';
import { FsStore } from '../../src/store/fs-store.js';
import { type MakeOptions, makeBackup, restoreTo } from './backups.js';
import { keyProviders, memoryDirectory } from './key-fixtures.js';
import { SealedVolume, volumePath } from './sealed-volume.js';
import { BLOCK, patternBlock, SMALL_TUNING, seededRandom } from './volume-harness.js';

const BLOCKS = 2048;
const ZEROS = new Uint8Array(BLOCK);
const RUN_BLOCKS_MAX = 24;
const never = new AbortController().signal;
let version = 0;

export class BackupSubject {
  readonly dataDirectory: string;
  readonly cipher: CipherPool;
  readonly store: FsStore;
  readonly random: () => number;
  sealed: SealedVolume;
  /** Version of each block; 0: unmapped. */
  versions = new Uint32Array(BLOCKS);
  readonly #io = new Arena(1 << 20);

  private constructor(
    scene: { dataDirectory: string; cipher: CipherPool },
    store: FsStore,
    sealed: SealedVolume,
    random: () => number,
  ) {
    this.dataDirectory = scene.dataDirectory;
    this.cipher = scene.cipher;
    this.store = store;
    this.sealed = sealed;
    this.random = random;
  }

  static async create(
    suite: SuiteId,
    cipher: CipherPool,
    seed: number,
    keyUri = 'local:default',
  ): Promise<BackupSubject> {
    const dataDirectory = memoryDirectory();
    const path = volumePath(dataDirectory);
    mkdirSync(path, { recursive: true });
    const store = await FsStore.open(path);
    const options = { dataDirectory, cipher, tuning: SMALL_TUNING, store, suite, blocks: BLOCKS, keyUri };
    const sealed = await SealedVolume.create(options);
    return new BackupSubject({ dataDirectory, cipher }, store, sealed, seededRandom(seed));
  }

  /** What was restored into `path`, with the content that it ought to have. */
  async restored(path: string, versions: Uint32Array<ArrayBuffer>): Promise<BackupSubject> {
    const { dataDirectory, cipher, random } = this;
    const store = await FsStore.open(path);
    const sealed = await SealedVolume.open(path, { dataDirectory, cipher, tuning: SMALL_TUNING }, store);
    const copy = new BackupSubject({ dataDirectory, cipher }, store, sealed, random);
    copy.versions = versions.slice();
    return copy;
  }

  get volume() {
    return this.sealed.volume;
  }

  get mapped(): number {
    return this.versions.filter((each) => each !== 0).length;
  }

  directory(name: string): string {
    return join(this.dataDirectory, name);
  }

  /** Writes and trims at random places below block `within`; returns which blocks that concerned. */
  async change(steps: number, within = BLOCKS): Promise<ReadonlySet<number>> {
    const touched = new Set<number>();
    for (let i = 0; i < steps; i++) {
      const lba = Math.floor(this.random() * within);
      const count = Math.min(within - lba, 1 + Math.floor(this.random() * RUN_BLOCKS_MAX));
      for (let j = 0; j < count; j++) touched.add(lba + j);
      if (this.random() < 0.15) {
        await this.volume.trim(lba * BLOCK, count * BLOCK);
        this.versions.fill(0, lba, lba + count);
      } else await this.write(lba, count);
    }
    return touched;
  }

  /** The same block again and again; not noted in `versions`. */
  async writeBlocks(lba: number, count: number, block: Uint8Array): Promise<void> {
    await this.sealed.write(this.#io, lba, ...Array.from({ length: count }, () => block));
  }

  async write(lba: number, count: number): Promise<void> {
    version++;
    const blocks = Array.from({ length: count }, (_, j) => patternBlock(lba + j, version));
    await this.sealed.write(this.#io, lba, ...blocks);
    this.versions.fill(version, lba, lba + count);
  }

  /** Every block is what it ought to be; those that `isLost` are errors. */
  async expectContent(
    versions: Uint32Array = this.versions,
    isLost = (_lba: number) => false,
  ): Promise<void> {
    for (let lba = 0; lba < BLOCKS; lba++) {
      if (isLost(lba)) {
        await expect(this.sealed.read(this.#io, lba)).rejects.toMatchObject({ code: 'EIO' });
        continue;
      }
      const wanted = versions[lba] === 0 ? ZEROS : patternBlock(lba, versions[lba]);
      const found = await this.sealed.read(this.#io, lba);
      if (Buffer.compare(found, wanted) !== 0)
        throw new Error(`block ${lba} is not version ${versions[lba]}`);
    }
  }

  backUp(name: string, options: MakeOptions = {}): Promise<Manifest> {
    return makeBackup(this, this.sealed, this.store, this.directory(name), options);
  }

  restore(backup: string, name: string, salvage = false) {
    return restoreTo(this, this.directory(backup), name, { salvage });
  }

  /** `key rotate`; with `rewriteToo` all of the data, and the old DEKs are gone. */
  async rotate(rewriteToo: boolean): Promise<void> {
    const { header, volume } = this.sealed;
    const { keyUri } = header.superblock.deks[0];
    const services = { providers: keyProviders(this.dataDirectory), clock: systemClock };
    await rotate(header, volume, { ...services, keyUri, rewrite: rewriteToo });
    if (!rewriteToo) return;
    await this.rewrite();
  }

  /** `volume encrypt` of a `none` volume, up to the rewriting of its plaintext. */
  async beginEncryption(): Promise<void> {
    const { header, volume } = this.sealed;
    const providers = keyProviders(this.dataDirectory);
    await providers.open('local:default').ensure();
    const wanted = { keyUri: 'local:default', rewrite: true, suite: 2 as const };
    await rotate(header, volume, { providers, clock: systemClock, ...wanted });
  }

  /** Rewrites what is under older DEKs, or in plaintext. */
  async rewrite(): Promise<void> {
    const { header, volume } = this.sealed;
    await volume.rewrite({ signal: never, onProgress: () => undefined });
    await dropOld(header, volume);
  }

  /** After something that closed it. */
  async reopen(): Promise<void> {
    this.sealed.header.revoke();
    const { dataDirectory, cipher } = this;
    const options = { dataDirectory, cipher, tuning: SMALL_TUNING };
    this.sealed = await SealedVolume.open(this.store.path, options, this.store);
  }

  async stop(): Promise<void> {
    await this.sealed.stop();
    this.#io.free();
  }
}
