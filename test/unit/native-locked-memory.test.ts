/** What the addon does where the kernel locks no more memory. Each case is a process with its own RLIMIT_MEMLOCK. */
import { describe, expect, test } from 'vitest';
import { inChild, lockedMemoryLimit } from '../support/native-child.js';

/** The table of keys, and one chunk of that of segment keys (native/keys). */
const KEYS_BYTES = 4096 * 32;
const CHUNK_KEYS = 1024;
const CHUNK_BYTES = CHUNK_KEYS * 576;

/** AddressSanitizer turns mlock into nothing. */
const CAN_LIMIT = process.env.SEALBD_SANITIZED === undefined && lockedMemoryLimit(0) !== undefined;

const HELPERS = `
  const { readFileSync } = require('node:fs');
  const codeOf = (fn) => { try { fn(); return 'ok'; } catch (error) { return error.code; } };
  const report = (value) => console.log(JSON.stringify(value));
  const context = (i) => { const bytes = Buffer.alloc(57, 2); bytes.writeUInt32LE(i, 40); return bytes; };
  const derive = (key, i) => addon.segmentKeyDerive(key, 2, context(i));
  const lockedKb = () => Number(/^VmLck:\\s+(\\d+)/m.exec(readFileSync('/proc/self/status', 'latin1'))[1]);
`;

async function withLimit(bytes: number, script: string): Promise<unknown> {
  const { code, stdout, stderr } = await inChild(HELPERS + script, {
    wrapper: lockedMemoryLimit(bytes) ?? [],
  });
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout);
}

describe.skipIf(!CAN_LIMIT)('key memory under RLIMIT_MEMLOCK', () => {
  test('that must be locked is refused where nothing can be, and nothing stays mapped', async () => {
    const script = `
      addon.secureMemoryRequireLocked(true);
      const codes = [codeOf(() => addon.secureMemory()), codeOf(() => addon.keyGenerate())];
      addon.secureMemoryRequireLocked(false);
      const { locked, pagesBytes } = addon.secureMemory();
      report({ codes, locked, pagesBytes });
    `;
    expect(await withLimit(0, script)).toEqual({
      codes: ['KEY_MEMORY', 'KEY_MEMORY'],
      locked: false,
      pagesBytes: KEYS_BYTES + CHUNK_BYTES,
    });
  });

  test('that must be locked is refused at the start where keys fit but segment keys do not', async () => {
    const script = `
      addon.secureMemoryRequireLocked(true);
      report([codeOf(() => addon.secureMemory()), lockedKb() * 1024]);
    `;
    expect(await withLimit(KEYS_BYTES + CHUNK_BYTES - 1, script)).toEqual(['KEY_MEMORY', KEYS_BYTES]);
  });

  test('that must be locked grows no further than the limit; a released key makes room', async () => {
    const script = `
      addon.secureMemoryRequireLocked(true);
      const key = addon.keyGenerate();
      const first = derive(key, 0);
      for (let i = 1; i < ${CHUNK_KEYS}; i++) derive(key, i);
      const full = codeOf(() => derive(key, ${CHUNK_KEYS}));
      const { locked, pagesBytes } = addon.secureMemory();
      addon.segmentKeyRelease(first);
      report({ full, locked, pagesBytes, lockedBytes: lockedKb() * 1024, after: codeOf(() => derive(key, 5000)) });
    `;
    expect(await withLimit(KEYS_BYTES + CHUNK_BYTES, script)).toEqual({
      full: 'KEY_MEMORY',
      locked: true,
      pagesBytes: KEYS_BYTES + CHUNK_BYTES,
      lockedBytes: KEYS_BYTES + CHUNK_BYTES,
      after: 'ok',
    });
  });

  test('that need not be locked grows on, and says so from then on', async () => {
    const script = `
      const key = addon.keyGenerate();
      for (let i = 0; i < ${CHUNK_KEYS}; i++) derive(key, i);
      const before = addon.secureMemory().locked;
      report([before, codeOf(() => derive(key, ${CHUNK_KEYS})), addon.secureMemory().locked]);
    `;
    expect(await withLimit(KEYS_BYTES + CHUNK_BYTES, script)).toEqual([true, 'ok', false]);
  });
});
