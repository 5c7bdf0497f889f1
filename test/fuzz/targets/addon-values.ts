/** Arguments that no caller should give, and may all the same. */
import type { Choices } from './choices.js';

class Liar extends Uint8Array {
  override get length(): number {
    return 2 ** 30;
  }
  override get byteLength(): number {
    return 2 ** 30;
  }
  override get byteOffset(): number {
    return 2 ** 20;
  }
}

function detached(): Uint8Array {
  const bytes = new Uint8Array(64);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  return bytes;
}

/** A view that followed its buffer and then lost it. */
function shrunk(): Uint8Array {
  const Resizable = ArrayBuffer as unknown as new (
    bytes: number,
    options: { maxByteLength: number },
  ) => ArrayBuffer & { resize(bytes: number): void };
  const buffer = new Resizable(64, { maxByteLength: 128 });
  const view = new Uint8Array(buffer, 32);
  buffer.resize(16);
  return view;
}

const trap = (): never => {
  throw new Error('nobody should look here');
};

const WRONG: readonly (() => unknown)[] = [
  () => undefined,
  () => null,
  () => Number.NaN,
  () => -1,
  () => -0,
  () => 1.5,
  () => 2 ** 31,
  () => 2 ** 32,
  () => 2 ** 53,
  () => Number.MAX_SAFE_INTEGER,
  () => Number.POSITIVE_INFINITY,
  () => 5n,
  () => true,
  () => '',
  () => 'a\0b',
  () => 'x'.repeat(5000),
  () => Symbol('x'),
  () => ({}),
  () => [1, 2, 3],
  () => trap,
  () => ({
    valueOf: trap,
    toString: trap,
    get length() {
      return trap();
    },
  }),
  () => new Proxy(new Uint8Array(64), { get: trap }),
  () => new Uint8Array(0),
  () => new Uint16Array(32),
  () => new Float64Array(3),
  () => new DataView(new ArrayBuffer(64)),
  () => new ArrayBuffer(64),
  () => new Uint8Array(new SharedArrayBuffer(64)),
  () => new SharedArrayBuffer(64),
  () => new Liar(64),
  () => new Liar(16),
  detached,
  () => detached().buffer,
  shrunk,
  () => Buffer.alloc(32).subarray(1),
];

export function wrongValue(choices: Choices): unknown {
  return choices.one(WRONG)();
}

/** Bytes of a length that some function asks for, at an odd place. */
export function someBytes(choices: Choices): Uint8Array {
  const length = choices.one([0, 1, 12, 16, 32, 44, 57, 60, choices.below(5000)]);
  const bytes = new Uint8Array(length + 1).subarray(1);
  bytes.set(choices.bytes(Math.min(length, 64)));
  return bytes;
}
