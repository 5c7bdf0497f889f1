/** Memory for secrets on their way: what it is, and whether importing a key leaves a copy of it elsewhere. */
import { once } from 'node:events';
import { describe, expect, test } from 'vitest';
import { addon } from '../../src/native/addon.js';
import { releaseSecret, secretBuffer } from '../../src/native/secret-buffer.js';
import { type Hit, scanProcess } from '../support/memory-scan.js';
import { inChild, lockedMemoryLimit, startChild } from '../support/native-child.js';

/** The child computes the key too, so that the bytes are nowhere but in what it imports. */
const byteAt = (i: number): number => (i * 29 + 0x5b + i * i) & 0xff;
const NEEDLE = { name: 'key', bytes: Buffer.from(Array.from({ length: 32 }, (_, i) => byteAt(i))) };

/** What a child runs that has these bytes in `bytes`. */
function withBytes(allocate: string, work: string): string {
  return `
    const secretBuffer = (size) => Buffer.from(addon.secretCreate(size));
    const byteAt = ${byteAt.toString()};
    let bytes = ${allocate};
    for (let i = 0; i < 32; i++) bytes[i] = byteAt(i);
    ${work}
    setTimeout(() => {}, 30_000);
  `;
}

/** Where the bytes are once the child has printed `said`. */
async function foundIn(script: string, said: string): Promise<Hit[]> {
  const child = startChild(script);
  try {
    const [text] = (await once(child.stdout!, 'data')) as [Buffer];
    expect(String(text)).toBe(`${said}\n`);
    return scanProcess(child.pid!, [NEEDLE]);
  } finally {
    child.kill('SIGKILL');
  }
}

/** Where the key is after a process filled the Buffer of `allocate`, imported it and, unless `keep`, let the key go. */
function keyLeftBy(allocate: string, keep: boolean): Promise<Hit[]> {
  const work = `
    const key = addon.keyImport(bytes);
    if (!${keep}) addon.keyRelease(key);
    console.log(bytes.every((byte) => byte === 0) ? 'wiped' : 'not wiped');
  `;
  return foundIn(withBytes(allocate, work), 'wiped');
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

describe.skipIf(process.env.SEALBD_SANITIZED !== undefined)('the bytes of a secretBuffer', () => {
  test('are in locked memory, out of core dumps and of children, and nowhere else', async () => {
    const hits = await foundIn(withBytes('secretBuffer(32)', `console.log('there');`), 'there');
    expect(hits).toHaveLength(1);
    expect(hits[0]!.flags).toEqual(expect.arrayContaining(['lo', 'dd', 'wf']));
  });

  test('are gone with the release', async () => {
    const work = `addon.secretRelease(bytes.buffer); console.log('released');`;
    expect(await foundIn(withBytes('secretBuffer(32)', work), 'released')).toEqual([]);
  });

  test('are gone, memory included, once nothing refers to it and it is collected', async () => {
    const script = `
      const before = addon.secureMemory().pagesBytes;
      for (let i = 0; i < 20; i++) addon.secretCreate(8192).byteLength;
      const held = addon.secureMemory().pagesBytes - before;
      require('node:v8').setFlagsFromString('--expose-gc');
      const collect = require('node:vm').runInNewContext('gc');
      const look = (left) => {
        collect();
        const now = addon.secureMemory().pagesBytes - before;
        if (now === 0 || left === 0) console.log(held, now);
        else setTimeout(look, 10, left - 1);
      };
      look(1000);
    `;
    expect((await inChild(script)).stdout).toBe(`${20 * 8192} 0\n`);
  });

  test.skipIf(lockedMemoryLimit(0) === undefined)(
    'are in no other memory where locking is asked for',
    async () => {
      const script = `
      const codeOf = (fn) => { try { fn(); return 'ok'; } catch (error) { return error.code; } };
      addon.secureMemoryRequireLocked(true);
      const first = codeOf(() => addon.secretCreate(4096));
      addon.secureMemoryRequireLocked(false);
      console.log(first, codeOf(() => addon.secretCreate(4096)), addon.secureMemory().locked);
    `;
      const { stdout } = await inChild(script, { wrapper: lockedMemoryLimit(0)! });
      expect(stdout).toBe('KEY_MEMORY ok false\n');
    },
  );
});

describe('a secretBuffer', () => {
  test.each([0, 1, 4096, 100_000])('of %i bytes is zeroed, and empty after its release', (size) => {
    const buffer = secretBuffer(size);
    expect(buffer.equals(Buffer.alloc(size))).toBe(true);
    buffer.fill(1);
    const part = buffer.subarray(1, 9);
    releaseSecret(part);
    expect([buffer.length, part.length]).toEqual([0, 0]);
    releaseSecret(buffer);
  });

  test('gives its memory back after the release', async () => {
    const before = addon.secureMemory().pagesBytes;
    const buffer = secretBuffer(10_000);
    expect(addon.secureMemory().pagesBytes - before).toBe(12_288);
    releaseSecret(buffer);
    await expect.poll(() => addon.secureMemory().pagesBytes, { timeout: 30_000 }).toBeLessThanOrEqual(before);
  });

  test('is the only thing that can be released as one', () => {
    const arena = addon.arenaCreate(4096);
    for (const other of [Buffer.from('of the pool').buffer, new ArrayBuffer(32), arena.buffer]) {
      expect(() => addon.secretRelease(other)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    }
    addon.arenaFree(arena.id);
    for (const wrong of [undefined, null, 1, Buffer.alloc(1)]) {
      expect(() => addon.secretRelease(wrong as unknown as ArrayBuffer)).toThrow(
        expect.objectContaining({ code: 'EINVAL' }),
      );
    }
  });

  test.each([0, -1, 1.5, 2 ** 24 + 1, Number.NaN])('has no size of %d bytes', (size) => {
    expect(() => addon.secretCreate(size)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });
});
