/**
 * The directories of volumes. A name that starts with a dot is unfinished business: a volume being made, or one
 * being deleted. Such directories are erased when the daemon starts.
 */
import { constants, promises as fs } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { errnoOf, messageOf, SealbdError } from '../base/errors.js';
import { BLOCK_BYTES, NAME_PATTERN, SUPERBLOCK_BYTES_MAX, VOLUME_BYTES_MAX } from '../base/limits.js';
import type { RandomSource } from '../base/random.js';
import { syncDirectory } from '../base/sync-directory.js';
import { CANDIDATE_NAME, SUPERBLOCK_NAMES } from '../keys/header-copies.js';
import { openRegular } from '../store/fs-file.js';
import { FsStore } from '../store/fs-store.js';

export interface ClosedUsage {
  readonly segments: number;
  readonly storedBytes: number;
  readonly mappedBytes: number | null;
}

export interface Erasure {
  readonly directory: string;
  /** Why it is there still; undefined where it is gone. */
  readonly problem: string | undefined;
}

/** Where the root of a checkpoint counts the mapped blocks (docs/FORMAT.md). */
const CHECKPOINT_MAPPED_AT = 88;
const SEGMENT_PATTERN = /^seg-[0-9a-f]{16}$/;

export class VolumeFiles {
  readonly #root: string;
  readonly #random: RandomSource;

  /** `root` is DIR/volumes. */
  constructor(root: string, random: RandomSource) {
    this.#root = root;
    this.#random = random;
  }

  pathOf(name: string): string {
    return join(this.#root, name);
  }

  /** Names of volumes, sorted. */
  async list(): Promise<string[]> {
    const entries = await fs.readdir(this.#root, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isDirectory() && NAME_PATTERN.test(entry.name))
      .map((entry) => entry.name)
      .sort();
  }

  /** Finishes what a crash interrupted, directory by directory, and tells what became of each. */
  async eraseUnfinished(): Promise<Erasure[]> {
    const entries = await fs.readdir(this.#root, { withFileTypes: true });
    const names = entries
      .filter((entry) => entry.isDirectory() && entry.name.startsWith('.'))
      .map(({ name }) => name);
    const erasures: Erasure[] = [];
    for (const directory of names) {
      try {
        await this.#eraseDirectory(directory);
        erasures.push({ directory, problem: undefined });
      } catch (error) {
        erasures.push({ directory, problem: messageOf(error) });
      }
    }
    return erasures;
  }

  /** A fresh directory for a volume in the making, as a path. */
  async makeTemporary(name: string): Promise<string> {
    const path = this.pathOf(this.#temporaryName('create', name));
    await fs.mkdir(path, { mode: 0o700 });
    return path;
  }

  /** Gives a finished volume its name, durably. CONFLICT where it is taken. */
  async publish(temporaryPath: string, name: string): Promise<void> {
    await syncDirectory(temporaryPath);
    if (await this.#exists(name)) throw new SealbdError('CONFLICT', `volume "${name}" exists already`);
    await fs.rename(temporaryPath, this.pathOf(name));
    await syncDirectory(this.#root);
  }

  async discardTemporary(temporaryPath: string): Promise<void> {
    await eraseKeys(temporaryPath);
    await fs.rm(temporaryPath, { recursive: true, force: true });
  }

  /** Crypto-erase: the wrapped DEKs are overwritten and gone before anything else is. */
  async erase(name: string): Promise<void> {
    await eraseKeys(this.pathOf(name));
    const temporary = this.#temporaryName('delete', name);
    await fs.rename(this.pathOf(name), this.pathOf(temporary));
    await syncDirectory(this.#root);
    await this.#eraseDirectory(temporary);
  }

  /**
   * What a volume that is not open holds, as its files claim. Nothing of it is proven: for display only, and so what is no
   * regular file, or gone in between, counts for nothing.
   */
  async usage(name: string): Promise<ClosedUsage> {
    let segments = 0;
    let storedBytes = 0;
    for (const file of await fs.readdir(this.pathOf(name))) {
      if (!SEGMENT_PATTERN.test(file)) continue;
      const found = await lstatIfThere(join(this.pathOf(name), file));
      if (found?.isFile() !== true) continue;
      segments += 1;
      storedBytes += found.size;
    }
    return { segments, storedBytes, mappedBytes: await this.#mappedBytes(name) };
  }

  /** Null where there is no checkpoint that can be read: opening the volume tells why. */
  async #mappedBytes(name: string): Promise<number | null> {
    const root = await FsStore.at(this.pathOf(name))
      .readSmall('checkpoint')
      .catch(() => undefined);
    if (root === undefined || root.length < CHECKPOINT_MAPPED_AT + 8) return null;
    const blocks = Number(root.readBigUInt64LE(CHECKPOINT_MAPPED_AT));
    return blocks * BLOCK_BYTES <= VOLUME_BYTES_MAX ? blocks * BLOCK_BYTES : null;
  }

  async #eraseDirectory(name: string): Promise<void> {
    await eraseKeys(this.pathOf(name));
    await fs.rm(this.pathOf(name), { recursive: true });
    await syncDirectory(this.#root);
  }

  async #exists(name: string): Promise<boolean> {
    return (await lstatIfThere(this.pathOf(name))) !== undefined;
  }

  #temporaryName(what: string, name: string): string {
    const suffix = Buffer.from(this.#random.fill(new Uint8Array(8))).toString('hex');
    return `.${what}-${name}-${suffix}`;
  }
}

/** Overwriting in place reaches the old blocks on filesystems that do not copy on write; it costs nothing elsewhere. */
async function eraseKeys(directory: string): Promise<void> {
  for (const name of [...SUPERBLOCK_NAMES, CANDIDATE_NAME]) {
    for (const file of [name, `${name}.tmp`]) await overwriteAndUnlink(join(directory, file));
  }
  await syncDirectory(directory);
}

async function lstatIfThere(path: string) {
  try {
    return await fs.lstat(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** What is no regular file holds no key of ours: a link is removed and not followed, a pipe is not opened. */
async function overwriteAndUnlink(path: string): Promise<void> {
  const found = await lstatIfThere(path);
  if (found === undefined) return;
  if (found.isFile()) await overwrite(path);
  await fs.rm(path, { recursive: true });
}

async function overwrite(path: string): Promise<void> {
  const file = await openRegular(dirname(path), basename(path), constants.O_RDWR);
  try {
    const { size } = await file.stat();
    await file.write(new Uint8Array(Math.min(size, SUPERBLOCK_BYTES_MAX)), 0, undefined, 0);
    await file.sync();
  } finally {
    await file.close();
  }
}
