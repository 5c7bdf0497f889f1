import { FsStore } from '../../src/store/fs-store.js';
import type { Store, StoreFile } from '../../src/store/store.js';

/** A real store whose operations can be held up or made to fail, by name. */
export class HookedStore implements Store {
  onCreate: (name: string) => Promise<void> = async () => undefined;
  onWrite: (name: string, position: number) => Promise<void> = async () => undefined;
  onRead: (name: string, position: number, bytes: Uint8Array) => Promise<void> = async () => undefined;
  onReload: (name: string) => Promise<void> = async () => undefined;
  onRename: (from: string, to: string) => Promise<void> = async () => undefined;
  onRemove: (name: string) => Promise<void> = async () => undefined;
  onSyncDirectory: () => Promise<void> = async () => undefined;
  onReplace: (name: string) => Promise<void> = async () => undefined;
  readonly replaced: string[] = [];
  readonly #store: FsStore;

  constructor(store: FsStore) {
    this.#store = store;
  }

  get path(): string {
    return this.#store.path;
  }

  list(): Promise<string[]> {
    return this.#store.list();
  }

  readSmall(name: string): Promise<Buffer | undefined> {
    return this.#store.readSmall(name);
  }

  async replaceSmall(name: string, bytes: Uint8Array): Promise<void> {
    await this.onReplace(name);
    await this.#store.replaceSmall(name, bytes);
    this.replaced.push(name);
  }

  promoteSmall(from: string, to: string): Promise<void> {
    return this.#store.promoteSmall(from, to);
  }

  discardSmall(name: string): Promise<void> {
    return this.#store.discardSmall(name);
  }

  async remove(name: string): Promise<void> {
    await this.onRemove(name);
    await this.#store.remove(name);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.onRename(from, to);
    await this.#store.rename(from, to);
  }

  async syncDirectory(): Promise<void> {
    await this.onSyncDirectory();
    await this.#store.syncDirectory();
  }

  async create(name: string, sizeBytes: number): Promise<StoreFile> {
    await this.onCreate(name);
    return this.#hook(await this.#store.create(name, sizeBytes));
  }

  async open(name: string, access: 'read' | 'write'): Promise<StoreFile> {
    return this.#hook(await this.#store.open(name, access));
  }

  #hook(file: StoreFile): StoreFile {
    return {
      name: file.name,
      fd: file.fd,
      write: async (bytes, position) => {
        await this.onWrite(file.name, position);
        await file.write(bytes, position);
      },
      read: async (bytes, position) => {
        await this.onRead(file.name, position, bytes);
        return file.read(bytes, position);
      },
      sync: () => file.sync(),
      reload: async () => {
        await file.reload();
        await this.onReload(file.name);
      },
      truncate: (sizeBytes) => file.truncate(sizeBytes),
      size: () => file.size(),
      links: () => file.links(),
      identity: () => file.identity(),
      close: () => file.close(),
    };
  }
}

export interface Gate {
  readonly opened: Promise<void>;
  open(): void;
}

export function gate(): Gate {
  let open = (): void => undefined;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

export function ioError(syscall: string): Error {
  return Object.assign(new Error(`EIO: injected, ${syscall}`), { code: 'EIO', syscall });
}

/** For a harness: its store with hooks, handed on when it is opened. */
export function hooked(onOpen: (store: HookedStore) => void): (path: string) => Promise<Store> {
  return async (path) => {
    const store = new HookedStore(await FsStore.open(path, { create: true }));
    onOpen(store);
    return store;
  };
}

export function diskFull(): Error {
  return Object.assign(new Error('ENOSPC: injected'), { code: 'ENOSPC', syscall: 'fallocate' });
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
