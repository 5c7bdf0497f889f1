/** A device as a client sees it that may read it and not change it. The others go on as before. */
import { SealbdError } from '../base/errors.js';
import type { Arena } from '../native/arena.js';
import type { BlockDevice, Extent, MaybePromise, StepBudget } from './block-device.js';

export class ReadOnlyDevice implements BlockDevice {
  readonly readOnly = true;
  readonly #device: BlockDevice;

  constructor(device: BlockDevice) {
    this.#device = device;
  }

  get name(): string {
    return this.#device.name;
  }

  get description(): string {
    return this.#device.description;
  }

  get sizeBytes(): number {
    return this.#device.sizeBytes;
  }

  read(dst: Arena, dstOffset: number, offset: number, length: number): MaybePromise<void> {
    return this.#device.read(dst, dstOffset, offset, length);
  }

  // The session refuses these before they come here; so does this, whoever asks.

  write(): never {
    throw this.#refusal();
  }

  trim(): never {
    throw this.#refusal();
  }

  zero(): never {
    throw this.#refusal();
  }

  /** Of what others wrote and this client may have read. */
  flush(): Promise<void> {
    return this.#device.flush();
  }

  extents(offset: number, length: number, extentsMax: number, steps?: StepBudget): Extent[] {
    return this.#device.extents(offset, length, extentsMax, steps);
  }

  attach(onClose: (reason: string) => void): () => void {
    return this.#device.attach(onClose);
  }

  #refusal(): SealbdError {
    return new SealbdError('EPERM', `"${this.name}" is read-only for this client`);
  }
}
