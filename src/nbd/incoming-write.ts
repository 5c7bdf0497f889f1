/**
 * A WRITE whose payload is arriving. The device gets it in pieces, as it comes, straight from the chunk it was
 * received into; pieces end on block boundaries, so a block is never written in two halves. Nothing of a refused
 * write reaches the device, but its payload is read over, which keeps the stream in step.
 */
import { BLOCK_BYTES, WRITE_PIECE_BYTES_MIN } from '../base/limits.js';
import { type WireError, wireErrorOf } from './errno.js';
import type { Session } from './session.js';
import { CommandFlag, Errno } from './wire/constants.js';
import type { Request } from './wire/request.js';

export class IncomingWrite {
  readonly #session: Session;
  readonly #request: Request;
  #error: WireError | undefined;
  #offset: number;
  #remaining: number;
  #pending = 0;

  constructor(session: Session, request: Request, error: WireError | undefined) {
    this.#session = session;
    this.#request = { ...request };
    this.#error = error;
    this.#offset = request.offset;
    this.#remaining = request.length;
  }

  /** Takes what has arrived. True when the payload is complete; the reply follows when the device is done. */
  advance(): boolean {
    while (this.#remaining > 0) {
      const length = this.#error === undefined ? this.#nextPiece() : this.#skip();
      if (length === 0) return false;
      this.#remaining -= length;
      this.#offset += length;
    }
    if (this.#pending === 0) this.#finish();
    return true;
  }

  #skip(): number {
    const { input } = this.#session;
    const length = Math.min(input.available, this.#remaining);
    input.consume(length);
    return length;
  }

  /** Hands one piece to the device; returns its length, 0 where more must arrive first. */
  #nextPiece(): number {
    const { input } = this.#session;
    let length = Math.min(input.available, this.#remaining);
    if (length < this.#remaining) {
      if (length < WRITE_PIECE_BYTES_MIN && !input.full) return 0;
      length -= (this.#offset + length) % BLOCK_BYTES;
      if (length <= 0) return 0;
    }
    this.#write(length);
    input.consume(length);
    return length;
  }

  #write(length: number): void {
    const { input, device } = this.#session;
    const { chunk, start } = input;
    // The device may have shrunk since the header was judged.
    if (this.#offset + length > device.sizeBytes) {
      this.#error = { errno: Errno.ENOSPC, message: 'write past the end', deviceOffset: this.#offset };
      return;
    }
    try {
      const result = device.write(chunk.arena, start, this.#offset, length);
      if (result === undefined) return;
      this.#pending += 1;
      this.#session.track(result, length, chunk, (error) => {
        this.#pending -= 1;
        this.#error ??= error;
        if (this.#pending === 0 && this.#remaining === 0) this.#finish();
      });
    } catch (error) {
      this.#error = wireErrorOf(error);
    }
  }

  #finish(): void {
    if (this.#error !== undefined) {
      this.#session.fail(this.#request, this.#error);
      return;
    }
    this.#session.counters.bytesWritten += this.#request.length;
    this.#session.succeed(this.#request, (this.#request.flags & CommandFlag.FUA) !== 0);
  }
}
