/** What targets hold against what a decoder says. */
import { isSealbdError } from '../../../src/base/errors.js';
import { addon, type KeyHandle } from '../../../src/native/addon.js';

/** Any key will do: it is the same in every process, so that an input means the same. */
export const KEY: KeyHandle = addon.keyImport(new Uint8Array(new ArrayBuffer(32)).fill(7));
export const UUID = Uint8Array.from({ length: 16 }, (_, i) => 0x10 + i);
export const MAC_BYTES = 16;

/** The result, or undefined where it throws INTEGRITY, which bytes of others may; nothing else may be thrown. */
export function decoded<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch (error) {
    if (isSealbdError(error, 'INTEGRITY')) return undefined;
    throw error;
  }
}

export function requireSame(found: Uint8Array, expected: Uint8Array, what: string): void {
  if (Buffer.compare(found, expected) === 0) return;
  const at = found.findIndex((byte, i) => byte !== expected[i]);
  throw new Error(`${what}: ${found.length} and ${expected.length} bytes, differ from ${at} on`);
}

export function requireThat(holds: boolean, what: string): void {
  if (!holds) throw new Error(`not true: ${what}`);
}

export function setUint32(bytes: Uint8Array, at: number, value: number): void {
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).setUint32(at, value, true);
}

export function getUint32(bytes: Uint8Array, at: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(at, true);
}

/** A copy that begins where no typed array wants it, like the input itself. */
export function copyOf(bytes: Uint8Array, length = bytes.length): Uint8Array {
  const copy = new Uint8Array(length + 1).subarray(1);
  copy.set(bytes.subarray(0, length));
  return copy;
}
