import type { Store, StoreFile } from '../../src/store/store.js';

/** A store that tells after each step that makes something durable, or takes something away. */
export class StepStore implements Store {
  readonly #inner: Store;
  /** What is called after each step, with its name; the step returns to its caller when this resolves. */
  onStep: (step: string) => Promise<void> = async () => undefined;

  constructor(inner: Store) {
    this.#inner = inner;
  }

  get path(): string {
    return this.#inner.path;
  }

  list(): Promise<string[]> {
    return this.#inner.list();
  }

  readSmall(name: string): Promise<Buffer | undefined> {
    return this.#inner.readSmall(name);
  }

  async replaceSmall(name: string, bytes: Uint8Array): Promise<void> {
    await this.#inner.replaceSmall(name, bytes);
    await this.onStep(`replace ${name}`);
  }

  async promoteSmall(from: string, to: string): Promise<void> {
    await this.#inner.promoteSmall(from, to);
    await this.onStep(`promote ${from} to ${to}`);
  }

  async discardSmall(name: string): Promise<void> {
    await this.#inner.discardSmall(name);
    await this.onStep(`discard ${name}`);
  }

  async remove(name: string): Promise<void> {
    await this.#inner.remove(name);
    await this.onStep(`remove ${name}`);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#inner.rename(from, to);
    await this.onStep(`rename ${from} to ${to}`);
  }

  async syncDirectory(): Promise<void> {
    await this.#inner.syncDirectory();
    await this.onStep('sync directory');
  }

  async create(name: string, sizeBytes: number): Promise<StoreFile> {
    return this.#watch(await this.#inner.create(name, sizeBytes));
  }

  async open(name: string, access: 'read' | 'write'): Promise<StoreFile> {
    return this.#watch(await this.#inner.open(name, access));
  }

  #watch(file: StoreFile): StoreFile {
    return {
      name: file.name,
      fd: file.fd,
      write: (bytes, position) => file.write(bytes, position),
      read: (bytes, position) => file.read(bytes, position),
      sync: async () => {
        await file.sync();
        await this.onStep(`sync ${file.name}`);
      },
      reload: () => file.reload(),
      truncate: (sizeBytes) => file.truncate(sizeBytes),
      size: () => file.size(),
      links: () => file.links(),
      identity: () => file.identity(),
      close: () => file.close(),
    };
  }
}
