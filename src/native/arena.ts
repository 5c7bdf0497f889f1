import { errnoOf, messageOf, SealbdError } from '../base/errors.js';
import { addon } from './addon.js';

/**
 * A range of memory that belongs to the addon: page-aligned, in huge pages where the kernel has them, out of
 * core dumps and out of forked children. Its id is process-wide, so a worker thread names the same bytes by
 * `ref`, without sharing a JavaScript buffer.
 */
export class Arena {
  readonly id: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly #base: number;

  /** ENOMEM where there is no memory. */
  constructor(sizeBytes: number) {
    const { id, buffer } = created(sizeBytes);
    this.id = id;
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
    this.#base = id * 2 ** 32;
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  /** The process-wide name of a byte of this arena. The addon checks bounds on every use. */
  ref(offset: number): number {
    return this.#base + offset;
  }

  /** Wipes the arena and gives its memory back. Views made of it become unusable. */
  free(): void {
    addon.arenaFree(this.id);
  }
}

function created(sizeBytes: number): ReturnType<typeof addon.arenaCreate> {
  try {
    return addon.arenaCreate(sizeBytes);
  } catch (error) {
    if (errnoOf(error) !== 'ENOMEM') throw error;
    throw new SealbdError('ENOMEM', messageOf(error), { cause: error });
  }
}
