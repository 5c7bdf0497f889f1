/** Whether importing a key leaves a copy of it in the memory of the process. */
import { once } from 'node:events';
import { describe, expect, test } from 'vitest';
import { secretBuffer } from '../../src/native/secret-buffer.js';
import { type Hit, scanProcess } from '../support/memory-scan.js';
import { startChild } from '../support/native-child.js';

/** The child computes the key too, so that the bytes are nowhere but in what it imports. */
const byteAt = (i: number): number => (i * 29 + 0x5b + i * i) & 0xff;
const NEEDLE = { name: 'key', bytes: Buffer.from(Array.from({ length: 32 }, (_, i) => byteAt(i))) };

/** Where the key is after a process filled the Buffer of `allocate`, imported it and, unless `keep`, let the key go. */
async function keyLeftBy(allocate: string, keep: boolean): Promise<Hit[]> {
  const child = startChild(
    `
    const secretBuffer = ${secretBuffer.toString()};
    const byteAt = ${byteAt.toString()};
    const bytes = ${allocate};
    for (let i = 0; i < 32; i++) bytes[i] = byteAt(i);
    const key = addon.keyImport(bytes);
    if (!keep) addon.keyRelease(key);
    console.log(bytes.every((byte) => byte === 0) ? 'wiped' : 'not wiped');
    setTimeout(() => {}, 30_000);
  `.replace('!keep', String(!keep)),
  );
  try {
    const [said] = (await once(child.stdout!, 'data')) as [Buffer];
    expect(String(said)).toBe('wiped\n');
    return scanProcess(child.pid!, [NEEDLE]);
  } finally {
    child.kill('SIGKILL');
  }
}

// A sanitizer maps terabytes of its own, which nobody can scan.
describe.skipIf(process.env.SEALBD_SANITIZED !== undefined)('keyImport', () => {
  test('of a secretBuffer leaves no copy in the process, but the one in locked memory', async () => {
    const held = await keyLeftBy('secretBuffer(32)', true);
    expect(held).toHaveLength(1);
    expect(held[0]!.flags).toEqual(expect.arrayContaining(['dd', 'wf']));
    expect(await keyLeftBy('secretBuffer(32)', false)).toEqual([]);
  });

  test('of a small array inside the heap leaves one, which is why secretBuffer is there', async () => {
    expect(await keyLeftBy('new Uint8Array(32)', false)).not.toEqual([]);
  });
});
