/**
 * A BlockDevice in memory: sparse, in 4 KiB blocks of arenas. It can complete its operations later and out of
 * order, and fail where it is told to, so that tests see what a real device may do.
 */
import type { SealbdError } from '../../src/base/errors.js';
import { ARENA_CHUNK_BYTES, BLOCK_BYTES } from '../../src/base/limits.js';
import type { BlockDevice, Extent, MaybePromise } from '../../src/device/block-device.js';
import { Arena } from '../../src/native/arena.js';

const SLAB_BYTES = ARENA_CHUNK_BYTES;
const BLOCKS_PER_SLAB = SLAB_BYTES / BLOCK_BYTES;

export type Operation = 'read' | 'write' | 'flush' | 'trim' | 'zero' | 'extents';

export interface MemoryDeviceOptions {
  readonly name?: string;
  readonly description?: string;
  readonly sizeBytes?: number;
  readonly readOnly?: boolean;
}

interface Slab {
  readonly arena: Arena;
  /** One per block: something is stored there. */
  readonly used: Uint8Array;
  count: number;
}

export class MemoryDevice implements BlockDevice {
  readonly name: string;
  readonly description: string;
  readonly readOnly: boolean;
  sizeBytes: number;
  /** Decides, before each operation, whether it waits: undefined for at once, or a promise to wait for first. */
  delay: (operation: Operation) => Promise<void> | undefined = () => undefined;
  /** Errors by operation and range; what it returns is thrown. */
  fault: (operation: Operation, offset: number, length: number) => SealbdError | undefined = () => undefined;
  flushes = 0;
  /** Refuses clients while set. */
  attachError: SealbdError | undefined;
  readonly #slabs = new Map<number, Slab>();
  readonly #clients = new Set<(reason: string) => void>();

  constructor(options: MemoryDeviceOptions = {}) {
    this.name = options.name ?? 'memory';
    this.description = options.description ?? 'a device in memory';
    this.sizeBytes = options.sizeBytes ?? 64 * 1024 * 1024;
    this.readOnly = options.readOnly ?? false;
  }

  get clients(): number {
    return this.#clients.size;
  }

  /** Tells every client to go, as a volume that stops does. */
  closeClients(reason: string): void {
    for (const onClose of [...this.#clients]) onClose(reason);
  }

  free(): void {
    for (const { arena } of this.#slabs.values()) arena.free();
    this.#slabs.clear();
  }

  read(dst: Arena, dstOffset: number, offset: number, length: number): MaybePromise<void> {
    return this.#run('read', offset, length, () => {
      this.#pieces(offset, length, (slab, from, at, count) => {
        const target = dstOffset + from;
        if (slab === undefined) dst.bytes.fill(0, target, target + count);
        else dst.bytes.set(slab.arena.bytes.subarray(at, at + count), target);
      });
    });
  }

  write(src: Arena, srcOffset: number, offset: number, length: number): MaybePromise<void> {
    return this.#run('write', offset, length, () => {
      for (let done = 0; done < length; ) {
        const index = Math.floor((offset + done) / SLAB_BYTES);
        const at = (offset + done) % SLAB_BYTES;
        const count = Math.min(length - done, SLAB_BYTES - at);
        const slab = this.#slab(index);
        slab.arena.bytes.set(src.bytes.subarray(srcOffset + done, srcOffset + done + count), at);
        const end = Math.ceil((at + count) / BLOCK_BYTES);
        for (let block = Math.floor(at / BLOCK_BYTES); block < end; block++) {
          slab.count += 1 - slab.used[block];
          slab.used[block] = 1;
        }
        done += count;
      }
    });
  }

  async flush(): Promise<void> {
    await this.#run('flush', 0, 0, () => {
      this.flushes += 1;
    });
  }

  trim(offset: number, length: number): MaybePromise<void> {
    const start = Math.ceil(offset / BLOCK_BYTES) * BLOCK_BYTES;
    const end = Math.floor((offset + length) / BLOCK_BYTES) * BLOCK_BYTES;
    return this.#run('trim', offset, length, () => this.#clear(start, end - start));
  }

  zero(offset: number, length: number): MaybePromise<void> {
    return this.#run('zero', offset, length, () => this.#clear(offset, length));
  }

  extents(offset: number, length: number, extentsMax: number): Extent[] {
    const fault = this.fault('extents', offset, length);
    if (fault !== undefined) throw fault;
    const extents: { length: number; hole: boolean }[] = [];
    let at = offset;
    while (at < offset + length) {
      const { hole, length: run } = this.#state(at, offset + length - at);
      const last = extents.at(-1);
      if (last?.hole === hole) last.length += run;
      else if (extents.length === extentsMax) break;
      else extents.push({ length: run, hole });
      at += run;
    }
    return extents;
  }

  attach(onClose: (reason: string) => void): () => void {
    if (this.attachError !== undefined) throw this.attachError;
    // A client is who it is: the same callback twice would count once.
    const client = (reason: string) => onClose(reason);
    this.#clients.add(client);
    return () => this.#clients.delete(client);
  }

  #run(operation: Operation, offset: number, length: number, action: () => void): MaybePromise<void> {
    const act = () => {
      const fault = this.fault(operation, offset, length);
      if (fault !== undefined) throw fault;
      action();
    };
    const delay = this.delay(operation);
    return delay === undefined ? act() : delay.then(act);
  }

  #slab(index: number): Slab {
    let slab = this.#slabs.get(index);
    if (slab === undefined) {
      slab = { arena: new Arena(SLAB_BYTES), used: new Uint8Array(BLOCKS_PER_SLAB), count: 0 };
      this.#slabs.set(index, slab);
    }
    return slab;
  }

  /** Calls back for each part of the range that lies in one slab: the slab, the part's start in the range, its
   * place in the slab and its length. */
  #pieces(
    offset: number,
    length: number,
    visit: (slab: Slab | undefined, from: number, at: number, count: number, index: number) => void,
  ): void {
    for (let done = 0; done < length; ) {
      const index = Math.floor((offset + done) / SLAB_BYTES);
      const at = (offset + done) % SLAB_BYTES;
      const count = Math.min(length - done, SLAB_BYTES - at);
      visit(this.#slabs.get(index), done, at, count, index);
      done += count;
    }
  }

  #clear(offset: number, length: number): void {
    const end = offset + length;
    const first = Math.floor(offset / SLAB_BYTES);
    const last = Math.floor((end - 1) / SLAB_BYTES);
    // A range of terabytes meets few slabs: walk those that exist.
    for (const [index, slab] of this.#slabs) {
      if (index < first || index > last) continue;
      const from = Math.max(offset - index * SLAB_BYTES, 0);
      const to = Math.min(end - index * SLAB_BYTES, SLAB_BYTES);
      if (from >= to) continue;
      slab.arena.bytes.fill(0, from, to);
      for (let block = Math.ceil(from / BLOCK_BYTES); block < Math.floor(to / BLOCK_BYTES); block++) {
        slab.count -= slab.used[block];
        slab.used[block] = 0;
      }
      if (slab.count === 0) {
        slab.arena.free();
        this.#slabs.delete(index);
      }
    }
  }

  /** The run at `offset` inside one slab, or over absent ones. */
  #state(offset: number, length: number): Extent {
    const slab = this.#slabs.get(Math.floor(offset / SLAB_BYTES));
    if (slab === undefined)
      return { hole: true, length: Math.min(length, SLAB_BYTES - (offset % SLAB_BYTES)) };
    const at = offset % SLAB_BYTES;
    const first = Math.floor(at / BLOCK_BYTES);
    let block = first + 1;
    while (block < BLOCKS_PER_SLAB && slab.used[block] === slab.used[first]) block += 1;
    return { hole: slab.used[first] === 0, length: Math.min(length, block * BLOCK_BYTES - at) };
  }
}

/** An ExportSource over a fixed set of devices, the first one being the default. */
export function exportsOf(...devices: BlockDevice[]) {
  return {
    lookup: (name: string): BlockDevice | SealbdError | undefined =>
      devices.find((device) => device.name === name),
    list: () => devices.map(({ name, description }) => ({ name, description })),
    defaultName: devices[0]?.name,
  };
}
