/** A volume over a store with hooks, whose DEK is changed as the daemon does it: superblock and engine, but no jobs. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { systemClock } from '../../src/base/clock.js';
import { errnoOf } from '../../src/base/errors.js';
import { type Logger, nullLogger } from '../../src/base/log.js';
import { CipherPool } from '../../src/cipher/cipher-pool.js';
import { dropOld, rotate } from '../../src/daemon/dek-rotation.js';
import type { AddDekOptions, VolumeHeader } from '../../src/keys/volume-header.js';
import { Arena } from '../../src/native/arena.js';
import type { SuiteId } from '../../src/segment/format.js';
import { FsStore } from '../../src/store/fs-store.js';
import type { VolumeTuning } from '../../src/volume/tuning.js';
import type { Volume } from '../../src/volume/volume.js';
import { HookedStore } from './hooked-store.js';
import { expectNoLeakedSlots, keyProviders, memoryDirectory } from './key-fixtures.js';
import { SealedVolume, volumePath } from './sealed-volume.js';
import { patternBlock, SMALL_TUNING } from './volume-harness.js';

const DEK_ID_AT = 12;
const MARKER = Buffer.from('this block was in plaintext once');
const MARKER_AT = 64;

export interface RotatingOptions {
  readonly suite?: SuiteId;
  readonly blocks?: number;
  readonly tuning?: Partial<VolumeTuning>;
  readonly log?: Logger;
}

export class RotatingVolume {
  readonly dataDirectory: string;
  readonly path: string;
  readonly tuning: Partial<VolumeTuning>;
  readonly cipher = new CipherPool({ threads: 1 });
  /** That of the first opening, and of those that it is given to. */
  readonly store: HookedStore;
  readonly #log: Logger;
  readonly #io = new Arena(1 << 20);
  readonly #versions = new Map<number, number>();
  #sealed: SealedVolume | undefined;

  private constructor(dataDirectory: string, store: HookedStore, tuning: Partial<VolumeTuning>, log: Logger) {
    this.#log = log;
    this.dataDirectory = dataDirectory;
    this.path = store.path;
    this.store = store;
    this.tuning = { ...SMALL_TUNING, mapBytesMax: 1 << 28, ...tuning };
  }

  /** Under local:default. Stopped, and gone, when the test has finished. */
  static async create({ suite = 2, blocks = 2048, tuning = {}, log = nullLogger }: RotatingOptions = {}) {
    expectNoLeakedSlots();
    const dataDirectory = memoryDirectory();
    await keyProviders(dataDirectory).open('local:default').ensure();
    const store = new HookedStore(await FsStore.open(volumePath(dataDirectory), { create: true }));
    const subject = new RotatingVolume(dataDirectory, store, tuning, log);
    onTestFinished(() => subject.#end());
    subject.#sealed = await SealedVolume.create({ ...subject.#options, store, suite, blocks });
    return subject;
  }

  get #options() {
    const { dataDirectory, cipher, tuning } = this;
    return { dataDirectory, cipher, tuning, log: this.#log };
  }

  async #end(): Promise<void> {
    await this.#sealed?.stop();
    await this.cipher.destroy();
    this.#io.free();
  }

  get sealed(): SealedVolume {
    if (this.#sealed === undefined) throw new Error('the volume is not open');
    return this.#sealed;
  }

  get volume(): Volume {
    return this.sealed.volume;
  }

  get header(): VolumeHeader {
    return this.sealed.header;
  }

  /** As `1 retired`, oldest first. */
  get deks(): string[] {
    return this.header.superblock.deks.map(({ id, state }) => `${id} ${state}`);
  }

  get rotateOptions(): Omit<AddDekOptions, 'rewrite'> {
    return { providers: keyProviders(this.dataDirectory), clock: systemClock, keyUri: 'local:default' };
  }

  rotate(rewrite = false): Promise<void> {
    return rotate(this.header, this.volume, { ...this.rotateOptions, rewrite });
  }

  /** The step from `none` to a DEK. */
  convert(): Promise<void> {
    return rotate(this.header, this.volume, { ...this.rotateOptions, rewrite: true, suite: 2 });
  }

  rewrite(onProgress: (done: number, total: number) => void = () => undefined): Promise<void> {
    return this.volume.rewrite({ signal: new AbortController().signal, onProgress });
  }

  dropOld(): Promise<number[]> {
    return dropOld(this.header, this.volume);
  }

  async write(version: number, ...lbas: number[]): Promise<void> {
    for (const lba of lbas) {
      await this.sealed.write(this.#io, lba, content(lba, version));
      this.#versions.set(lba, version);
    }
  }

  /** Blocks `from` to `to`, the latter not included. */
  fill(version: number, from: number, to: number): Promise<void> {
    return this.write(version, ...Array.from({ length: to - from }, (_, i) => from + i));
  }

  forget(lba: number): void {
    this.#versions.delete(lba);
  }

  /** Every block that was written reads as it was written last. */
  async expectData(): Promise<void> {
    for (const [lba, version] of this.#versions) {
      const block = await this.sealed.read(this.#io, lba);
      if (Buffer.compare(block, content(lba, version)) !== 0) throw new Error(`block ${lba} is wrong`);
    }
  }

  async stop(): Promise<void> {
    await this.sealed.stop();
    this.#sealed = undefined;
  }

  /** As a start of the daemon does, with no hooks. */
  async open(store?: HookedStore): Promise<void> {
    this.#sealed = await SealedVolume.open(this.path, this.#options, store);
  }

  /** Names of the segments' files, oldest first. */
  get segments(): string[] {
    return readdirSync(this.path)
      .filter((name) => /^seg-[0-9a-f]{16}$/.test(name))
      .sort();
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** Names of the files in which a block's content can be read. */
  get plainFiles(): string[] {
    return readdirSync(this.path).filter((name) => contentOf(this.file(name)).includes(MARKER));
  }

  /** No file that names a DEK names another one. What is blank names 0. */
  expectAllUnder(dekId: number): void {
    for (const name of readdirSync(this.path)) {
      if (!/^(seg|map|checkpoint|superblock|spare|reserve)/.test(name) || name === 'reserve-small') continue;
      const found = readFileSync(join(this.path, name)).readUInt32LE(DEK_ID_AT);
      const mayBeBlank = name.startsWith('spare') || name.startsWith('reserve');
      expect([name, mayBeBlank && found === 0 ? dekId : found]).toEqual([name, dekId]);
    }
  }
}

/** Nothing where the file was removed since it was listed. */
function contentOf(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return Buffer.alloc(0);
  }
}

/** With a text that no ciphertext has. */
function content(lba: number, version: number): Uint8Array {
  const block = patternBlock(lba, version);
  block.set(MARKER, MARKER_AT);
  return block;
}

/** What `work` rejects with. Fails where it does not. */
export async function rejection(work: Promise<unknown>): Promise<Error & { code?: string }> {
  const outcome = await work.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (outcome instanceof Error) return outcome;
  throw new Error('it was not refused');
}
