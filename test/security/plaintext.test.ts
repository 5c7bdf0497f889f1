import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Command } from '../../src/nbd/wire/constants.js';
import { DaemonProcess } from '../support/daemon-process.js';
import { formsOf, type Needle, scanBuffer, scanFile, scanProcess } from '../support/memory-scan.js';
import { RawClient } from '../support/nbd-raw-client.js';
import { hasProgram } from '../support/programs.js';
import { deriveKey, roundKeys } from '../support/reference-crypto.js';
import { volumePath } from '../support/sealed-volume.js';
import { SlotObserver } from '../support/slot-observer.js';
import { dekOfVolume, localKey } from '../support/volume-parser.js';

const MIB = 1 << 20;
/** A kernel that pipes cores to a program, or puts them in one place, gives none to a test. */
const canDump = hasProgram('prlimit') && /^[^|/]/.test(readFileSync('/proc/sys/kernel/core_pattern', 'utf8'));
/** Not a word of it may be found where plaintext has no business to be. */
const MARKER = `marker-${randomBytes(16).toString('hex')}`;
const MARKERS: Needle[] = [
  { name: 'plaintext', bytes: Buffer.from(MARKER) },
  { name: 'plaintext in UTF-16', bytes: Buffer.from(MARKER, 'utf16le') },
];

function marked(length: number): Buffer {
  return Buffer.alloc(length, `${MARKER}|`);
}

/** Whole blocks and parts of blocks, large and small: inline, pooled, through bounce blocks, out of buffers and files. */
const SHAPES: readonly [offset: number, length: number][] = [
  [0, 3 * MIB],
  [4 * MIB + 777, 100_000],
  [6 * MIB + 5, 100],
  [6 * MIB + 4000, 200],
  [7 * MIB, 4096],
  [7 * MIB + 4096, 64 * 1024],
  [8 * MIB + 512, 2 * MIB + 1024],
];

/** Writes, if so asked, and reads everything. The client stays connected. */
async function traffic(daemon: DaemonProcess, write: boolean): Promise<RawClient> {
  const client = await RawClient.serving(daemon.ready.listen[0], 'v');
  for (const [offset, length] of write ? SHAPES : []) {
    expect(await client.writeAt(offset, marked(length))).toBe(0);
  }
  if (write) {
    // Parts of blocks again, over blocks that hold data; and one that grows by small pieces.
    expect((await client.call(Command.WRITE_ZEROES, 7 * MIB + 100, 50)).error).toBe(0);
    for (let i = 0; i < 64; i++) expect(await client.writeAt(12 * MIB + i * 300, marked(300))).toBe(0);
    expect((await client.call(Command.FLUSH, 0, 0)).error).toBe(0);
  }
  for (const [offset, length] of SHAPES) {
    const { error, data } = await client.readAt(offset, length);
    expect(error).toBe(0);
    expect(data.includes(MARKER)).toBe(true);
    expect((await client.call(Command.CACHE, offset, length)).error).toBe(0);
  }
  return client;
}

function files(directory: string): string[] {
  return readdirSync(directory, { recursive: true, encoding: 'utf8' })
    .map((name) => join(directory, name))
    .filter((path) => statSync(path).isFile());
}

/** Round keys of a working key, one needle each, and the GHASH key that belongs to it. */
function expanded(name: string, key: Buffer): Needle[] {
  const rounds = roundKeys(key);
  return Array.from({ length: 15 }, (_, i) => ({
    name: `round key ${i} of ${name}`,
    bytes: rounds.subarray(16 * i, 16 * i + 16),
  }));
}

describe('a daemon that holds keys and data', () => {
  let directory: string;
  let data: string;
  let daemon: DaemonProcess;
  let kek: Needle[];
  let dek: Needle[];
  let segmentKeys: Needle[];

  /** Everything derived, as of now: segments come and go. */
  function learnKeys(): void {
    const path = volumePath(data);
    const dekBytes = dekOfVolume(data, path, 'default');
    const kekBytes = localKey(data, 'default');
    const observer = new SlotObserver(dekBytes);
    observer.look(path);
    expect(observer.slots).toBeGreaterThan(500);
    kek = [
      ...formsOf('local key', kekBytes),
      ...expanded('the local key', kekBytes).slice(2),
      ...expanded('the wrapping key', deriveKey(kekBytes, 'sealbd/v1/wrap', Buffer.alloc(0))),
    ];
    dek = [...formsOf('DEK', dekBytes), ...expanded('the DEK', dekBytes).slice(2)];
    segmentKeys = observer
      .keys()
      .flatMap((key, i) => [
        ...formsOf(`segment key ${i}`, key).slice(0, 1),
        ...expanded(`segment key ${i}`, key),
      ]);
  }

  function expectCleanLog(): void {
    expect(daemon.log().length).toBeGreaterThan(3);
    expect(scanBuffer(Buffer.from(daemon.logText), [...MARKERS, ...kek, ...dek, ...segmentKeys])).toEqual([]);
  }

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'sealbd-plaintext-'));
    data = join(directory, 'data');
    const config = join(directory, 'config.toml');
    writeFileSync(
      config,
      '[log]\nlevel = "debug"\n[tuning]\npool_seal_from = "64K"\npool_read_from = "64K"\n',
    );
    // The kernel writes the core to the working directory.
    const options = canDump ? { cwd: directory, wrapper: ['prlimit', '--core=unlimited:unlimited'] } : {};
    daemon = await DaemonProcess.startShared(
      data,
      ['--config', config, '--default-volume', 'v:64M'],
      options,
    );
    const client = await traffic(daemon, true);
    await client.close();
    learnKeys();
  });

  afterAll(async () => {
    await daemon.signal('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  });

  it('writes neither plaintext nor keys to any file, the local key in its keyring aside', () => {
    const all = files(data);
    expect(all.length).toBeGreaterThan(5);
    for (const path of all) {
      const secrets = [...MARKERS, ...dek, ...segmentKeys, ...(path.endsWith('keyring.json') ? [] : kek)];
      expect(scanFile(path, secrets), path).toEqual([]);
    }
  });

  it('keeps keys in locked pages, plaintext in unlocked ones, both out of dumps and children; the local key nowhere', async () => {
    const client = await traffic(daemon, false);
    const hits = scanProcess(daemon.pid, [...MARKERS, ...kek, ...dek, ...segmentKeys]);
    await client.close();
    // The scan sees what is there.
    for (const what of ['DEK, raw', 'segment key', 'plaintext']) {
      expect(
        hits.some(({ name }) => name.startsWith(what)),
        what,
      ).toBe(true);
    }
    const unsafe = hits.filter(({ name, flags }) => {
      const kept = flags.includes('dd') && (flags.includes('wf') || flags.includes('dc'));
      return !kept || (!name.startsWith('plaintext') && !flags.includes('lo'));
    });
    expect(unsafe).toEqual([]);
    expect(hits.filter(({ name }) => kek.some((needle) => needle.name === name))).toEqual([]);
  });

  it('holds neither keys nor plaintext in its memory or its log, at the debug level, once the volume is stopped', async () => {
    await daemon.ok('volume', 'verify', 'v');
    const gone = await traffic(daemon, false);
    await gone.close();
    const connected = await traffic(daemon, false);
    await daemon.ok('volume', 'stop', 'v');
    await connected.closed;
    learnKeys();
    expect(scanProcess(daemon.pid, [...MARKERS, ...kek, ...dek, ...segmentKeys])).toEqual([]);
    expectCleanLog();
  });

  it.skipIf(!canDump)(
    'leaves neither plaintext nor keys in a core dump of a daemon that serves',
    async () => {
      await daemon.ok('volume', 'start', 'v');
      await traffic(daemon, true);
      learnKeys();
      expect((await daemon.signal('SIGABRT')).signal).toBe('SIGABRT');
      const cores = readdirSync(directory).filter((name) => name.startsWith('core'));
      expect(cores).toHaveLength(1);
      // The heap is in it: the name of the data directory is a string there.
      const there = { name: 'heap', bytes: Buffer.from(data) };
      const path = join(directory, cores[0]);
      expect(scanFile(path, [there, ...MARKERS, ...kek, ...dek, ...segmentKeys])).toEqual(['heap']);
    },
  );

  it('holds neither after it recovered from a crash, served, and was stopped again', async () => {
    await daemon.signal('SIGKILL');
    daemon = await DaemonProcess.startShared(data, ['--config', join(directory, 'config.toml')]);
    await daemon.ok('volume', 'start', 'v');
    const client = await traffic(daemon, false);
    learnKeys();
    expect(scanProcess(daemon.pid, dek).length).toBeGreaterThan(0);
    await daemon.ok('volume', 'stop', 'v');
    await client.closed;
    expect(scanProcess(daemon.pid, [...MARKERS, ...kek, ...dek, ...segmentKeys])).toEqual([]);
    expectCleanLog();
  });
});

describe('the reference of these tests', () => {
  it('expands a key as FIPS 197, appendix A.3, does', () => {
    const key = Buffer.from('603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4', 'hex');
    expect(roundKeys(key).subarray(0, 32)).toEqual(key);
    expect(roundKeys(key).subarray(-16).toString('hex')).toBe('fe4890d1e6188d0b046df344706c631e');
  });

  it('finds a secret across the chunks of a scan, and in each of its forms', () => {
    const secret = randomBytes(32);
    const needles = formsOf('secret', secret);
    for (const { name, bytes } of needles)
      expect(scanBuffer(Buffer.concat([randomBytes(99), bytes]), needles)).toContain(name);
  });
});
