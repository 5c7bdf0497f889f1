/** A snapshot as NBD serves it: read-only, and with a map in memory only while somebody is attached. */
import { isSealbdError, messageOf, SealbdError } from '../base/errors.js';
import type { Logger } from '../base/log.js';
import type { MaybePromise } from '../base/maybe-promise.js';
import type { BlockDevice, Extent, StepBudget } from '../device/block-device.js';
import type { Arena } from '../native/arena.js';
import { BlockMap } from './block-map.js';
import type { ChangeLog } from './change-log.js';
import type { Pin } from './pin.js';
import { ReadPath, type ReadPathOptions } from './read-path.js';
import type { Snapshot } from './snapshot.js';

export interface SnapshotDeviceOptions extends Omit<ReadPathOptions, 'map'> {
  readonly volume: string;
  readonly snapshot: Snapshot;
  /** Keeps what it names while its map is read. */
  pin(snapshot: Snapshot): Pin;
  readonly log: Logger;
  /** Has maps loaded one after the other, so that they are within their bound; `load` learns what its one may take. */
  inTurn<T>(load: (mapBytesMax: number) => Promise<T>): Promise<T>;
  /** Throws where the volume takes no requests. */
  admit(): void;
  /** The volume is being closed. */
  isStopped(): boolean;
  /** Has a stop of the volume wait for it. */
  track<T>(work: MaybePromise<T>): MaybePromise<T>;
}

interface Loaded {
  readonly map: BlockMap;
  readonly reads: ReadPath;
}

const NOBODY = 'nobody is attached to the snapshot any more';

export class SnapshotDevice implements BlockDevice {
  readonly name: string;
  readonly description = 'snapshot of a sealed volume';
  readonly readOnly = true;
  readonly #options: SnapshotDeviceOptions;
  readonly #clients = new Set<(reason: string) => void>();
  #loading: Promise<Loaded> | undefined;
  #loaded: Loaded | undefined;

  constructor(options: SnapshotDeviceOptions) {
    this.#options = options;
    this.name = `${options.volume}@${options.snapshot.name}`;
  }

  get sizeBytes(): number {
    return this.#options.snapshot.entry.sizeBytes;
  }

  get clients(): number {
    return this.#clients.size;
  }

  /** Of the map, outside the JavaScript heap. */
  get memoryBytes(): number {
    return this.#loaded?.map.memoryBytes ?? 0;
  }

  /** The first client has the map loaded, the last one takes it along. */
  attach(onClose: (reason: string) => void): () => void {
    this.#options.admit();
    const { problem } = this.#options.snapshot;
    if (problem !== undefined) throw new SealbdError('EIO', problem);
    this.#clients.add(onClose);
    const loading = this.#options.track(this.#load()) as Promise<Loaded>;
    loading.catch((error: unknown) => {
      if (isSealbdError(error, 'ESHUTDOWN')) return;
      this.#options.log.error(
        { snapshot: this.name, reason: messageOf(error) },
        'a snapshot can not be read',
      );
    });
    return () => {
      this.#clients.delete(onClose);
      if (this.#clients.size > 0) return;
      this.#loading = undefined;
      this.#loaded = undefined;
    };
  }

  /** Ends every connection. */
  close(reason: string): void {
    for (const close of [...this.#clients]) close(reason);
  }

  read(dst: Arena, dstOffset: number, offset: number, length: number): MaybePromise<void> {
    this.#admit(offset, length);
    const read = ({ reads }: Loaded) => reads.read(dst, dstOffset, offset, length);
    return this.#options.track(this.#loaded === undefined ? this.#load().then(read) : read(this.#loaded));
  }

  /** While the map is being loaded everything is said to hold data, as it may. */
  extents(offset: number, length: number, extentsMax: number, steps?: StepBudget): Extent[] {
    this.#admit(offset, length);
    return this.#loaded?.reads.extents(offset, length, extentsMax, steps) ?? [{ length, hole: false }];
  }

  /** There is nothing that could be lost. */
  async flush(): Promise<void> {
    this.#options.admit();
  }

  write(): never {
    throw readOnly();
  }

  trim(): never {
    throw readOnly();
  }

  zero(): never {
    throw readOnly();
  }

  /** Blocks were moved: what a map in memory names must follow before their sources go. */
  async follow(moved: ChangeLog): Promise<void> {
    // One that is being loaded sees that the snapshot has changed.
    const map = this.#loaded?.map;
    if (map === undefined) return;
    for await (const { count, lba, blocks, slot } of moved.sortedRuns()) {
      for (let i = 0; i < count; i++)
        for (let at = 0; at < blocks[i]; at++) map.move(lba[i] + at, map.get(lba[i] + at), slot[i] + at);
    }
  }

  #admit(offset: number, length: number): void {
    this.#options.admit();
    if (offset + length > this.sizeBytes)
      throw new SealbdError('EINVAL', 'the request passes the end of the snapshot');
  }

  #load(): Promise<Loaded> {
    if (this.#clients.size === 0) return Promise.reject(new SealbdError('ESHUTDOWN', NOBODY));
    if (this.#loading !== undefined) return this.#loading;
    const isWanted = (): boolean => this.#loading === loading;
    const read = (mapBytesMax: number): Promise<Loaded> => this.#readMap(mapBytesMax, isWanted);
    const loading: Promise<Loaded> = this.#options.inTurn(read).catch((error: unknown) => {
      // The next one who reads tries again.
      if (isWanted()) this.#loading = undefined;
      throw deviceError(error);
    });
    this.#loading = loading;
    return loading;
  }

  async #readMap(mapBytesMax: number, isWanted: () => boolean): Promise<Loaded> {
    const { snapshot, pin, isStopped } = this.#options;
    for (;;) {
      if (!isWanted()) throw new SealbdError('ESHUTDOWN', NOBODY);
      const { entry } = snapshot;
      const map = new BlockMap(mapBytesMax);
      const pinned = pin(snapshot);
      try {
        const loader = map.loader();
        for await (const { count, lba, blocks, slot } of pinned.runs()) {
          if (isStopped() || !isWanted()) throw new SealbdError('ESHUTDOWN', NOBODY);
          for (let i = 0; i < count; i++) loader.add(lba[i], blocks[i], slot[i]);
        }
        loader.finish();
      } finally {
        await pinned.release();
      }
      // Where blocks were moved meanwhile it is out of date; from here on it is told of that.
      if (snapshot.entry !== entry || !isWanted()) continue;
      const loaded = { map, reads: new ReadPath({ ...this.#options, map }) };
      this.#loaded = loaded;
      return loaded;
    }
  }
}

function readOnly(): SealbdError {
  return new SealbdError('EPERM', 'a snapshot is read-only');
}

/** Why the map of a snapshot could not be had, as a device says it. */
function deviceError(error: unknown): SealbdError {
  const known = (['ENOMEM', 'ESHUTDOWN'] as const).find((code) => isSealbdError(error, code));
  return new SealbdError(known ?? 'EIO', messageOf(error), { cause: error });
}
