/** Where a volume's files live. One writer; names are flat. Errors are Node's, with `code` an errno name. */
export interface Store {
  readonly path: string;
  list(): Promise<string[]>;
  /** The whole of a small file, or undefined where there is none. */
  readSmall(name: string): Promise<Buffer | undefined>;
  /** Replaces a small file atomically and durably: after a crash it is the old one or the new one. Works on a full
   *  disk too: a small reserve is kept for it. */
  replaceSmall(name: string, bytes: Uint8Array): Promise<void>;
  /** Puts one small file in place of another, atomically and durably, on a full disk too. */
  promoteSmall(from: string, to: string): Promise<void>;
  /** Removes a small file durably; its space stays in the reserve where the reserve was used up for it. */
  discardSmall(name: string): Promise<void>;
  /** Unlinks; an absent file is fine. */
  remove(name: string): Promise<void>;
  /** Renames within the store. Durable after `syncDirectory`. */
  rename(from: string, to: string): Promise<void>;
  syncDirectory(): Promise<void>;
  /** A new file, open for reading and writing, with `sizeBytes` of disk space allocated (0: none). On failure
   *  nothing is left behind. The name is durable after `syncDirectory`. */
  create(name: string, sizeBytes: number): Promise<StoreFile>;
  open(name: string, access: 'read' | 'write'): Promise<StoreFile>;
}

/** Device and inode. */
export interface FileIdentity {
  readonly dev: bigint;
  readonly ino: bigint;
}

export interface StoreFile {
  readonly name: string;
  /** Descriptor for the addon's read path; reads through it see everything written. */
  readonly fd: number;
  /** Writes all the bytes or throws; after a throw any part of them may have been written. */
  write(bytes: Uint8Array, position: number): Promise<void>;
  /** Reads until `bytes` is full or the file ends; returns the bytes read. */
  read(bytes: Uint8Array, position: number): Promise<number>;
  /** fdatasync: what was written before the call is durable after it. */
  sync(): Promise<void>;
  /**
   * As `sync`, and forgets what is cached: reads see the medium after it. Without it they may see pages that a sync of some
   * process before failed to write, and that no later sync will write.
   */
  reload(): Promise<void>;
  truncate(sizeBytes: number): Promise<void>;
  size(): Promise<number>;
  /** How many names it has. One that another volume shares has more than one, and must not be changed. */
  links(): Promise<number>;
  /** Tells it from every other file that is open. */
  identity(): Promise<FileIdentity>;
  close(): Promise<void>;
}
