/** A store whose operations pass a gate, each of them, so that they hold few threads of Node's pool however long they take. */
import type { Turns } from '../base/gate.js';
import type { FileIdentity, Store, StoreFile } from './store.js';

export class GatedStore implements Store {
  readonly path: string;
  readonly #store: Store;
  readonly #gate: Turns;

  constructor(store: Store, gate: Turns) {
    this.path = store.path;
    this.#store = store;
    this.#gate = gate;
  }

  list(): Promise<string[]> {
    return this.#gate.run(() => this.#store.list());
  }

  readSmall(name: string): Promise<Buffer | undefined> {
    return this.#gate.run(() => this.#store.readSmall(name));
  }

  replaceSmall(name: string, bytes: Uint8Array): Promise<void> {
    return this.#gate.run(() => this.#store.replaceSmall(name, bytes));
  }

  promoteSmall(from: string, to: string): Promise<void> {
    return this.#gate.run(() => this.#store.promoteSmall(from, to));
  }

  discardSmall(name: string): Promise<void> {
    return this.#gate.run(() => this.#store.discardSmall(name));
  }

  remove(name: string): Promise<void> {
    return this.#gate.run(() => this.#store.remove(name));
  }

  rename(from: string, to: string): Promise<void> {
    return this.#gate.run(() => this.#store.rename(from, to));
  }

  syncDirectory(): Promise<void> {
    return this.#gate.run(() => this.#store.syncDirectory());
  }

  async create(name: string, sizeBytes: number): Promise<StoreFile> {
    return new GatedFile(await this.#gate.run(() => this.#store.create(name, sizeBytes)), this.#gate);
  }

  async open(name: string, access: 'read' | 'write'): Promise<StoreFile> {
    return new GatedFile(await this.#gate.run(() => this.#store.open(name, access)), this.#gate);
  }
}

class GatedFile implements StoreFile {
  readonly name: string;
  readonly fd: number;
  readonly #file: StoreFile;
  readonly #gate: Turns;

  constructor(file: StoreFile, gate: Turns) {
    this.name = file.name;
    this.fd = file.fd;
    this.#file = file;
    this.#gate = gate;
  }

  write(bytes: Uint8Array, position: number): Promise<void> {
    return this.#gate.run(() => this.#file.write(bytes, position));
  }

  read(bytes: Uint8Array, position: number): Promise<number> {
    return this.#gate.run(() => this.#file.read(bytes, position));
  }

  sync(): Promise<void> {
    return this.#gate.run(() => this.#file.sync());
  }

  reload(): Promise<void> {
    return this.#gate.run(() => this.#file.reload());
  }

  truncate(sizeBytes: number): Promise<void> {
    return this.#gate.run(() => this.#file.truncate(sizeBytes));
  }

  size(): Promise<number> {
    return this.#gate.run(() => this.#file.size());
  }

  links(): Promise<number> {
    return this.#gate.run(() => this.#file.links());
  }

  identity(): Promise<FileIdentity> {
    return this.#gate.run(() => this.#file.identity());
  }

  close(): Promise<void> {
    return this.#gate.run(() => this.#file.close());
  }
}
