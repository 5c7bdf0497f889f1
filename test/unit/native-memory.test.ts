import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { addon, SUITE_GCM } from '../../src/native/addon.js';
import { Arena } from '../../src/native/arena.js';
import { inWorker } from '../support/native-worker.js';

interface Mapping {
  readonly start: bigint;
  readonly end: bigint;
  readonly permissions: string;
  readonly flags: ReadonlySet<string>;
}

/** This process's mappings, with the VmFlags of each (proc(5)). */
function mappings(): Mapping[] {
  const found: Mapping[] = [];
  for (const block of readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) (\S{4})/.exec(block);
    const flags = /^VmFlags: (.*)$/m.exec(block);
    if (head === null || flags === null) continue;
    found.push({
      start: BigInt(`0x${head[1]}`),
      end: BigInt(`0x${head[2]}`),
      permissions: head[3]!,
      flags: new Set(flags[1]!.trim().split(' ')),
    });
  }
  return found;
}

/** AddressSanitizer turns mlock into nothing; scripts/sanitize.sh says so. */
const MLOCK_WORKS = process.env.SEALBD_SANITIZED === undefined;

describe('key memory', () => {
  test('is locked, out of core dumps and children, between two inaccessible pages', () => {
    const key = addon.keyGenerate();
    const segmentKey = addon.segmentKeyDerive(key, SUITE_GCM, Buffer.alloc(57, SUITE_GCM));
    const { locked, pagesBytes } = addon.secureMemory();
    // wf: empty in a child; dd: not in a core dump.
    const all = mappings();
    const secure = all.filter((each) => each.flags.has('wf') && each.flags.has('dd'));
    expect(secure.reduce((sum, each) => sum + Number(each.end - each.start), 0)).toBe(pagesBytes);
    for (const region of secure) {
      expect(region.permissions).toBe('rw-p');
      if (MLOCK_WORKS) expect(region.flags.has('lo')).toBe(locked);
      expect(all.find((each) => each.end === region.start)?.permissions).toBe('---p');
      expect(all.find((each) => each.start === region.end)?.permissions).toBe('---p');
    }
    addon.segmentKeyRelease(segmentKey);
    addon.keyRelease(key);
  });
});

describe('an arena', () => {
  test('is out of core dumps and children, and in huge pages where it is large', () => {
    const arena = new Arena(6 << 20);
    arena.bytes[0] = 1;
    const region = mappings().find(
      (each) => Number(each.end - each.start) === 6 << 20 && each.flags.has('dd') && each.flags.has('dc'),
    );
    expect(region).toBeDefined();
    expect(region!.start % (2n << 20n)).toBe(0n);
    expect(region!.flags.has('hg')).toBe(true);
    arena.free();
  });

  test('is counted, and gone after free: views are empty, refs refused, a second free too', () => {
    const before = addon.arenaStats();
    const arena = new Arena(10_000);
    expect(addon.arenaStats()).toEqual({ arenas: before.arenas + 1, bytes: before.bytes + 10_000 });
    const key = addon.segmentKeyDerive(null, 0, Buffer.alloc(57));
    const seal = () => addon.sealRun(key, arena.ref(4096), arena.ref(0), 1, 0, 0, 1, -1, 1);
    expect(seal()).toBe(-1);
    arena.free();
    expect(addon.arenaStats()).toEqual(before);
    expect(arena.bytes).toHaveLength(0);
    expect(seal).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => arena.free()).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    addon.segmentKeyRelease(key);
  });

  test('starts as zeros, whatever was in the memory before', () => {
    for (let round = 0; round < 20; round++) {
      const arena = new Arena(300_000);
      expect(arena.bytes.every((byte) => byte === 0)).toBe(true);
      arena.bytes.fill(0xff);
      arena.free();
    }
  });

  test.each([0, -1, 1.5, 2 ** 32 + 1, Number.NaN])('of %d bytes is refused', (size) => {
    expect(() => new Arena(size)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  test('of a worker is freed with the worker', async () => {
    const before = addon.arenaStats();
    const script = `
      const { id, buffer } = addon.arenaCreate(1 << 20);
      new Uint8Array(buffer)[5] = 1;
      parentPort.postMessage(addon.arenaStats().arenas);
    `;
    expect(await inWorker(script, null)).toBe(before.arenas + 1);
    expect(addon.arenaStats()).toEqual(before);
  });

  test('can be used from another thread, but freed by its own alone', async () => {
    const arena = new Arena(1 << 20);
    const key = addon.segmentKeyDerive(null, 0, Buffer.alloc(57));
    arena.bytes.fill(0x5a, 0, 4096);
    const script = `
      const sealed = addon.sealRun(data.key, data.base + 8192, data.base, 1, 0, 0, 1, -1, 1);
      let code = 'ok';
      try { addon.arenaFree(data.id); } catch (error) { code = error.code; }
      parentPort.postMessage([sealed, code]);
    `;
    expect(await inWorker(script, { key, base: arena.ref(0), id: arena.id })).toEqual([-1, 'EINVAL']);
    expect(arena.bytes[8192]).toBe(0x5a);
    addon.segmentKeyRelease(key);
    arena.free();
  });
});
