import { addon } from './addon.js';

/**
 * A zeroed Buffer for secret bytes on their way, in memory such as key slots have: locked, out of core dumps and of
 * children, and outside the JavaScript heap from the start. The engine keeps the bytes of a small `new Uint8Array(n)` or
 * `Buffer.alloc(n)` inside its heap, and copies them out the moment that anybody needs their address: what is wiped then
 * is the copy. KEY_MEMORY where there is no such memory. `releaseSecret` ends it.
 */
export function secretBuffer(sizeBytes: number): Buffer {
  return Buffer.from(addon.secretCreate(Math.max(sizeBytes, 1)), 0, sizeBytes);
}

/** Wipes all of what `secretBuffer` gave, of which `buffer` may be a part, and gives it back. Views of it are empty then. */
export function releaseSecret(buffer: Buffer): void {
  addon.secretRelease(buffer.buffer);
}
