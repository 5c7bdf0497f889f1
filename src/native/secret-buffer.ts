/**
 * A zeroed Buffer for secret bytes, outside the JavaScript heap from the start. The engine keeps the bytes of a small
 * `new Uint8Array(n)` or `Buffer.alloc(n)` inside its heap, and copies them out the moment that anybody needs their
 * address: what is wiped then is the copy. A Buffer over an ArrayBuffer is never kept inside.
 */
export function secretBuffer(sizeBytes: number): Buffer {
  return Buffer.from(new ArrayBuffer(sizeBytes));
}
