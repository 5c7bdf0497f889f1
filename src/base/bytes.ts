/**
 * Bounds-checked little-endian cursors for the codecs. Integers above 32 bits travel as plain numbers, at most
 * 2^53 - 1. A reader that would leave its buffer, or a number too large to be exact, is an INTEGRITY error that
 * names the structure; a writer that would is a RangeError, since that is a mistake of the program.
 */
import { SealbdError } from './errors.js';

const WORD = 0x1_0000_0000;

export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #what: string;
  #at: number;

  /** `what` names the structure in errors, for example 'superblock'. */
  constructor(bytes: Uint8Array, what: string, start = 0) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#what = what;
    this.#at = start;
  }

  get offset(): number {
    return this.#at;
  }

  get remaining(): number {
    return this.#bytes.length - this.#at;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  u40(): number {
    const at = this.#take(5);
    return this.#view.getUint32(at, true) + this.#view.getUint8(at + 4) * WORD;
  }

  /** Seven bytes; above 2^53 - 1 it is an error. */
  u56(): number {
    const at = this.#take(7);
    const high = this.#view.getUint16(at + 4, true) + this.#view.getUint8(at + 6) * 0x1_0000;
    return this.#exact(this.#view.getUint32(at, true) + high * WORD);
  }

  /** Eight bytes; above 2^53 - 1 it is an error. */
  u64(): number {
    const at = this.#take(8);
    return this.#exact(this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * WORD);
  }

  /** A view of the next `length` bytes, not a copy. */
  bytes(length: number): Uint8Array {
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  /** UTF-8 of `length` bytes; anything that is not UTF-8 is an error. */
  text(length: number): string {
    const raw = this.bytes(length);
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(raw);
    } catch (error) {
      throw new SealbdError('INTEGRITY', `${this.#what}: text that is not UTF-8`, { cause: error });
    }
  }

  /** Reserved bytes must be zero. */
  zeros(length: number): void {
    if (this.bytes(length).some((byte) => byte !== 0)) throw this.error('reserved bytes are not zero');
  }

  /** An ASCII magic or any other constant. */
  expect(constant: Uint8Array | string): void {
    const wanted = typeof constant === 'string' ? new TextEncoder().encode(constant) : constant;
    const found = this.bytes(wanted.length);
    if (!found.every((byte, i) => byte === wanted[i])) throw this.error('wrong magic');
  }

  end(): void {
    if (this.remaining !== 0) throw this.error(`${this.remaining} bytes too many`);
  }

  error(problem: string): SealbdError {
    return new SealbdError('INTEGRITY', `${this.#what}: ${problem}`);
  }

  #take(length: number): number {
    const at = this.#at;
    if (length < 0 || length > this.#bytes.length - at) throw this.error('truncated');
    this.#at = at + length;
    return at;
  }

  #exact(value: number): number {
    if (!Number.isSafeInteger(value)) throw this.error('a number above 2^53 - 1');
    return value;
  }
}

export class ByteWriter {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at: number;

  /** Writes into `target`, which must be large enough. */
  constructor(target: Uint8Array | number, start = 0) {
    this.#bytes = typeof target === 'number' ? new Uint8Array(target) : target;
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength);
    this.#at = start;
  }

  get offset(): number {
    return this.#at;
  }

  /** What was written so far, as a view. */
  written(): Uint8Array {
    return this.#bytes.subarray(0, this.#at);
  }

  u8(value: number): this {
    this.#view.setUint8(this.#take(1, value, 0x100), value);
    return this;
  }

  u16(value: number): this {
    this.#view.setUint16(this.#take(2, value, 0x1_0000), value, true);
    return this;
  }

  u32(value: number): this {
    this.#view.setUint32(this.#take(4, value, WORD), value, true);
    return this;
  }

  u40(value: number): this {
    const at = this.#take(5, value, 2 ** 40);
    this.#view.setUint32(at, value % WORD, true);
    this.#view.setUint8(at + 4, Math.floor(value / WORD));
    return this;
  }

  u56(value: number): this {
    const at = this.#take(7, value, 2 ** 53);
    const high = Math.floor(value / WORD);
    this.#view.setUint32(at, value % WORD, true);
    this.#view.setUint16(at + 4, high & 0xffff, true);
    this.#view.setUint8(at + 6, high >>> 16);
    return this;
  }

  u64(value: number): this {
    const at = this.#take(8, value, 2 ** 53);
    this.#view.setUint32(at, value % WORD, true);
    this.#view.setUint32(at + 4, Math.floor(value / WORD), true);
    return this;
  }

  bytes(source: Uint8Array): this {
    this.#bytes.set(source, this.#take(source.length, 0, 1));
    return this;
  }

  text(value: string): this {
    return this.bytes(new TextEncoder().encode(value));
  }

  zeros(length: number): this {
    const at = this.#take(length, 0, 1);
    this.#bytes.fill(0, at, at + length);
    return this;
  }

  #take(length: number, value: number, limit: number): number {
    if (!Number.isSafeInteger(value) || value < 0 || value >= limit) {
      throw new RangeError(`${value} does not fit in ${length} bytes`);
    }
    const at = this.#at;
    if (length < 0 || length > this.#bytes.length - at) throw new RangeError('the buffer is too small');
    this.#at = at + length;
    return at;
  }
}

export function bytesEqual(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
