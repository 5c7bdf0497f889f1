import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { FsStore } from '../../src/store/fs-store.js';
import type { Store, StoreFile } from '../../src/store/store.js';

const SECTOR = 512;

interface PendingWrite {
  readonly position: number;
  readonly bytes: Uint8Array;
  returned: boolean;
}

/** What a file holds for certain (`durable`), and what the kernel may or may not have written behind it. */
class Content {
  durable = new Uint8Array(0);
  pending: PendingWrite[] = [];

  /** A copy of what some power loss could leave. */
  afterLoss(random: () => number): Uint8Array {
    const end = this.pending.reduce((max, write) => Math.max(max, write.position + write.bytes.length), 0);
    const image = new Uint8Array(Math.max(end, this.durable.length));
    image.set(this.durable);
    const mode = random();
    for (const write of this.pending) {
      if (mode < 0.2) continue; // Nothing of it.
      if (mode < 0.35) image.set(write.bytes, write.position);
      else if (mode < 0.6) {
        if (random() < 0.5) image.set(write.bytes, write.position);
      } else keepSomeSectors(image, write, random, mode < 0.8 ? 0.9 : 0.5);
    }
    return image;
  }
}

function keepSomeSectors(image: Uint8Array, write: PendingWrite, random: () => number, share: number): void {
  for (let at = 0; at < write.bytes.length; ) {
    const absolute = write.position + at;
    const length = Math.min(SECTOR - (absolute % SECTOR), write.bytes.length - at);
    if (random() < share) image.set(write.bytes.subarray(at, at + length), absolute);
    at += length;
  }
}

type NameChange = { readonly name: string; readonly content: Content | undefined };

/**
 * A store on a real directory that remembers what no fsync covers. `lose` writes a copy of the directory as a power
 * loss at that instant could leave it: unsynced writes dropped, torn at sectors or reordered, unsynced names there or
 * not. With `writeFaults`, some writes fail after having been applied in part.
 */
export class PowerLossStore implements Store {
  readonly path: string;
  readonly #inner: FsStore;
  readonly #contents = new Map<string, Content>();
  readonly #durableNames = new Map<string, Content>();
  #pendingNames: NameChange[][] = [];
  /** Chance that a write fails with EIO after part of it was applied. */
  writeFaults = 0;
  /** While true every fdatasync fails. */
  syncFails = false;
  /** Longest time that a write takes, so that other things happen under it. */
  latencyMs = 0;
  random: () => number = Math.random;

  constructor(inner: FsStore) {
    this.#inner = inner;
    this.path = inner.path;
  }

  /** A store on a directory that exists: what it holds now is durable. */
  static async adopt(inner: FsStore): Promise<PowerLossStore> {
    const store = new PowerLossStore(inner);
    for (const name of await inner.list()) {
      const content = new Content();
      content.durable = new Uint8Array(await readFile(join(inner.path, name)));
      store.#contents.set(name, content);
      store.#durableNames.set(name, content);
    }
    return store;
  }

  list(): Promise<string[]> {
    return this.#inner.list();
  }

  readSmall(name: string): Promise<Buffer | undefined> {
    return this.#inner.readSmall(name);
  }

  /** The same steps as FsStore, one by one, so that a loss can fall between them. */
  async replaceSmall(name: string, bytes: Uint8Array): Promise<void> {
    const temporary = `${name}.tmp`;
    await this.remove(temporary);
    const file = await this.create(temporary, 0);
    try {
      await file.write(bytes, 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await this.rename(temporary, name);
    await this.syncDirectory();
  }

  async promoteSmall(from: string, to: string): Promise<void> {
    await this.rename(from, to);
    await this.syncDirectory();
  }

  async discardSmall(name: string): Promise<void> {
    await this.remove(name);
    await this.syncDirectory();
  }

  async remove(name: string): Promise<void> {
    await this.#inner.remove(name);
    if (!this.#contents.delete(name)) return;
    this.#pendingNames.push([{ name, content: undefined }]);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#inner.rename(from, to);
    const content = this.#content(from);
    this.#contents.delete(from);
    this.#contents.set(to, content);
    this.#pendingNames.push([
      { name: from, content: undefined },
      { name: to, content },
    ]);
  }

  async syncDirectory(): Promise<void> {
    const covered = this.#pendingNames;
    await this.#inner.syncDirectory();
    this.#pendingNames = this.#pendingNames.filter((change) => !covered.includes(change));
    for (const change of covered) applyNames(this.#durableNames, change);
  }

  async create(name: string, sizeBytes: number): Promise<StoreFile> {
    const file = await this.#inner.create(name, sizeBytes);
    const content = new Content();
    content.durable = new Uint8Array(sizeBytes);
    this.#contents.set(name, content);
    this.#pendingNames.push([{ name, content }]);
    return new LossyFile(file, content, this);
  }

  async open(name: string, access: 'read' | 'write'): Promise<StoreFile> {
    return new LossyFile(await this.#inner.open(name, access), this.#content(name), this);
  }

  #content(name: string): Content {
    const content = this.#contents.get(name);
    if (content === undefined) throw new Error(`${name} was not made through this store`);
    return content;
  }

  /** Writes into `path` what a power loss now could leave. */
  async lose(path: string, random: () => number): Promise<void> {
    const names = new Map(this.#durableNames);
    const prefix = random() < 0.5 ? Math.floor(random() * (this.#pendingNames.length + 1)) : undefined;
    this.#pendingNames.forEach((change, i) => {
      if (prefix === undefined ? random() < 0.5 : i < prefix) applyNames(names, change);
    });
    const images = [...names].map(([name, content]) => [name, content.afterLoss(random)] as const);
    await mkdir(path, { recursive: true });
    for (const [name, image] of images) await writeFile(join(path, name), image, { mode: 0o600 });
  }
}

function applyNames(names: Map<string, Content>, change: NameChange[]): void {
  for (const { name, content } of change) {
    if (content === undefined) names.delete(name);
    else names.set(name, content);
  }
}

class LossyFile implements StoreFile {
  readonly name: string;
  readonly fd: number;
  readonly #file: StoreFile;
  readonly #content: Content;
  readonly #store: PowerLossStore;

  constructor(file: StoreFile, content: Content, store: PowerLossStore) {
    this.name = file.name;
    this.fd = file.fd;
    this.#file = file;
    this.#content = content;
    this.#store = store;
  }

  async write(bytes: Uint8Array, position: number): Promise<void> {
    if (this.#store.random() < this.#store.writeFaults) {
      const part = bytes.slice(0, Math.floor(this.#store.random() * bytes.length));
      this.#content.pending.push({ position, bytes: part, returned: true });
      await this.#file.write(part, position);
      throw Object.assign(new Error('injected: the write failed'), { code: 'EIO' });
    }
    // Until it has returned, no sync need cover it; but a loss may find any of it.
    const write = { position, bytes: bytes.slice(), returned: false };
    this.#content.pending.push(write);
    await this.#file.write(bytes, position);
    const { latencyMs, random } = this.#store;
    if (latencyMs > 0) await new Promise((resolve) => setTimeout(resolve, random() * latencyMs));
    write.returned = true;
  }

  read(bytes: Uint8Array, position: number): Promise<number> {
    return this.#file.read(bytes, position);
  }

  async sync(): Promise<void> {
    if (this.#store.syncFails)
      throw Object.assign(new Error('injected: fdatasync failed'), { code: 'EIO', syscall: 'fdatasync' });
    const covered = this.#content.pending.filter((write) => write.returned);
    await this.#file.sync();
    for (const write of covered) {
      const end = write.position + write.bytes.length;
      if (end > this.#content.durable.length) {
        const grown = new Uint8Array(end);
        grown.set(this.#content.durable);
        this.#content.durable = grown;
      }
      this.#content.durable.set(write.bytes, write.position);
    }
    this.#content.pending = this.#content.pending.filter((write) => !covered.includes(write));
  }

  async reload(): Promise<void> {
    await this.sync();
    await this.#file.reload();
  }

  /** Cutting is only ever done behind the last byte that counts: losing it loses nothing. */
  truncate(sizeBytes: number): Promise<void> {
    return this.#file.truncate(sizeBytes);
  }

  size(): Promise<number> {
    return this.#file.size();
  }

  links(): Promise<number> {
    return this.#file.links();
  }

  identity(): ReturnType<StoreFile['identity']> {
    return this.#file.identity();
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}
