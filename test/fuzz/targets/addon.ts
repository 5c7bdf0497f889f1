/**
 * The addon's functions as JavaScript sees them, with arguments right and wrong, in any order: each call returns, or throws
 * an error with a code; it writes nothing beside the blocks that it was given; and all is given back at the end. The addon
 * has libFuzzer's counters and the sanitizers.
 */
import { mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { addon, type KeyHandle, type SegmentKeyHandle, SUITE_NONE } from '../../../src/native/addon.js';
import { Arena } from '../../../src/native/arena.js';
import { BLOCK, requireAllowed, SLOT, WORD, writes } from './addon-runs.js';
import { someBytes, wrongValue } from './addon-values.js';
import { Choices } from './choices.js';
import { requireThat } from './oracle.js';

const STEPS_MAX = 24;
const ARENA_BLOCKS = 3;
const CODES = new Set(['EINVAL', 'KEY_REVOKED', 'KEY_STALE', 'KEY_MEMORY', 'KEY_AUTH', 'ENOMEM', 'EBADF']);

/** What readRun reads: slots of nothing, and the beginning of one. */
const FILE = unnamedFile(new Uint8Array(2 * SLOT + 100));
const EVENTS = new Float64Array(64);

/** Arenas that stay: that of readRun, which its first call makes. */
const ARENAS = arenasOfReads();

interface Scene {
  readonly choices: Choices;
  readonly arenas: Arena[];
  readonly keys: KeyHandle[];
  readonly segments: SegmentKeyHandle[];
  readonly sockets: number[];
  readonly secrets: ArrayBuffer[];
}

type Argument = (scene: Scene) => unknown;

const bytes: Argument = ({ choices }) => someBytes(choices);
const bytesOf =
  (length: number): Argument =>
  ({ choices }) =>
    choices.bytes(length);
const text: Argument = ({ choices }) => choices.one(['', 'a', 'sealbd/v1/test', 'é', 'x'.repeat(300)]);
const flag: Argument = ({ choices }) => choices.byte() % 2 === 1;
const small: Argument = ({ choices }) => choices.one([0, 1, 2, 3, choices.below(20_000), choices.word()]);
const number: Argument = ({ choices }) =>
  choices.one([0, 1, 2 ** 40 - 1, 2 ** 40, choices.word(), choices.word() * choices.word(), choices.float()]);
const position: Argument = ({ choices }) =>
  choices.one([0, 1, 16_382, 16_383, 16_384, choices.below(20_000)]);
const blocks: Argument = ({ choices }) => choices.one([1, 1, 2, 3, 0, choices.below(20_000)]);
const kind: Argument = ({ choices }) => choices.one([1, 1, 1, 2, 0, 3]);
const durable: Argument = (scene) => (scene.choices.byte() % 2 === 0 ? -1 : number(scene));
const table: Argument = (scene) => {
  const out = new Float64Array(scene.choices.one([0, 6, 7, 14, 15]));
  for (let at = 0; at + 7 <= out.length; at += 7) {
    const run = [segment, descriptor, small, blocks, ref, position, number].map((part) =>
      Number(part(scene)),
    );
    out.set(run, at);
  }
  return out;
};
const suite: Argument = ({ choices }) => choices.byte() % 3;
const kernel: Argument = ({ choices }) => choices.one(['portable', 'aesni', 'vaes256', 'vaes512', 'none']);
const held =
  (of: (scene: Scene) => readonly unknown[]): Argument =>
  (scene) =>
    of(scene).length === 0 ? scene.choices.word() : scene.choices.one(of(scene));
const key = held(({ keys }) => keys);
const segment = held(({ segments }) => segments);
const socket = held(({ sockets }) => sockets);
/** Near the ends of an arena, or anywhere. */
const ref: Argument = ({ choices, arenas }) => {
  const { id, sizeBytes } = choices.one(arenas);
  const near =
    choices.byte() % 8 === 0
      ? choices.word()
      : choices.one([0, 1, SLOT, BLOCK, sizeBytes - BLOCK, sizeBytes]);
  return id * WORD + near - (choices.byte() % 16 === 0 ? 1 : 0);
};
/** Never one that something else uses. */
const descriptor: Argument = ({ choices }) => choices.one([FILE, 1_000_000, 2 ** 31 - 1]);
const closed: Argument = ({ choices }) => choices.one([1_000_000, 2 ** 31 - 1]);
const address: Argument = ({ choices }) => choices.one(['127.0.0.1', '::1', 'nowhere', '127.0.0.1%x', '']);
const secret: Argument = ({ secrets, choices }) =>
  secrets.length === 0 ? new ArrayBuffer(8) : choices.one(secrets);
const pieces: Argument = (scene) =>
  Float64Array.of(...[ref, small, ref, small].map((part) => Number(part(scene))));
const context: Argument = ({ choices }) => {
  const out = choices.bytes(57);
  out[0] %= 3;
  return out;
};

/** Which keeps what a call gave, so that later calls use it. */
type Keep = (scene: Scene, result: never) => void;
const keepKey: Keep = ({ keys }, handle: KeyHandle) => keys.push(handle);
const keepSegment: Keep = ({ segments }, handle: SegmentKeyHandle) => segments.push(handle);
const keepSocket: Keep = ({ sockets }, handle: number) => handle >= 0 && sockets.push(handle);

type Call = readonly [name: string, args: readonly Argument[], keep?: Keep];

/** Beside those that change the process: secureMemoryRequireLocked, processLimits; and what writes files: ioListenUnix. */
const CALLS: readonly Call[] = [
  ['cpuKernels', []],
  ['arenaStats', []],
  ['arenaFree', [small]],
  ['secureMemory', []],
  ['secretCreate', [small], ({ secrets }, made: ArrayBuffer) => secrets.push(made)],
  ['secretRelease', [secret]],
  ['keyGenerate', [], keepKey],
  ['keyImport', [bytesOf(32)], keepKey],
  ['keyImportBase64', [bytes, small], keepKey],
  ['keyExportBase64', [key, bytes, small]],
  ['keyRetain', [key]],
  ['keyRelease', [key]],
  ['keyRevoke', [key]],
  ['keyIsRevoked', [key]],
  ['keyEquals', [key, key]],
  ['keyMac', [key, text, bytes, bytes]],
  ['keyMacVerify', [key, text, bytes, bytes, bytesOf(16)]],
  ['keyWrap', [key, key, bytes]],
  ['keyUnwrap', [key, bytesOf(60), bytes], keepKey],
  [
    'segmentKeyDerive',
    [(scene) => (scene.choices.byte() % 3 === 0 ? null : key(scene)), suite, context],
    keepSegment,
  ],
  ['segmentKeyRelease', [segment]],
  ['sealRun', [segment, ref, ref, blocks, position, number, number, durable, kind]],
  ['openRun', [segment, ref, ref, blocks, position, number]],
  ['readRun', [segment, descriptor, small, blocks, ref, position, number, flag]],
  ['readRuns', [table, small, small, flag, () => new Float64Array(1)]],
  ['scanRun', [segment, ref, ref, blocks, position, bytes]],
  ['ioStart', [() => EVENTS, () => () => undefined]],
  ['ioListenTcp', [address, () => 0, small], keepSocket],
  ['ioListenOn', [closed], keepSocket],
  ['ioAccept', [socket, small], keepSocket],
  ['ioName', [socket, flag]],
  ['ioReceive', [socket, ref, small]],
  ['ioSend', [socket, pieces, small]],
  ['ioInterest', [socket, small]],
  ['ioFinish', [socket]],
  ['ioClose', [socket]],
  ['ioRelease', [closed]],
  ['ioNotify', [() => '@sealbd-fuzz-nobody', text]],
  ['ioPeerUid', [closed]],
  ['ioSockets', []],
  ['crc32c', [bytes, small]],
  ['wipe', [bytes]],
  ['randomFill', [bytes]],
  ['fileLock', [descriptor]],
  ['primitives.ctr', [kernel, bytesOf(32), bytesOf(16), bytes, bytes]],
  ['primitives.gcmSeal', [kernel, bytesOf(32), bytesOf(12), bytes, bytes, bytes]],
  ['primitives.gcmOpen', [kernel, bytesOf(32), bytesOf(12), bytes, bytesOf(16), bytes, bytes]],
  ['primitives.cmac', [kernel, bytesOf(32), bytes]],
  ['primitives.kdf', [kernel, bytesOf(32), bytes, ({ choices }) => 8 * choices.below(600)]],
];

type Native = (...args: unknown[]) => unknown;

function nativeOf(name: string): Native {
  const [first, second] = name.split('.');
  const owner = second === undefined ? addon : addon.primitives;
  return (owner as unknown as Record<string, Native>)[second ?? first];
}

export function fuzz(data: Uint8Array): void {
  const choices = new Choices(data);
  const scene: Scene = {
    ...{ choices, keys: [], segments: [], sockets: [], secrets: [] },
    arenas: [new Arena(ARENA_BLOCKS * SLOT), new Arena(ARENA_BLOCKS * SLOT - 7)],
  };
  const before = addon.secureMemory();
  // Without one most calls would end before they begin.
  scene.segments.push(addon.segmentKeyDerive(null, SUITE_NONE, new Uint8Array(57)));
  try {
    for (let step = 0; step < STEPS_MAX && !choices.ended; step++) call(scene, choices.one(CALLS));
  } finally {
    giveBack(scene);
  }
  const after = addon.secureMemory();
  requireThat(after.slotsUsed === before.slotsUsed, 'no key is left');
  requireThat(after.segmentKeysUsed === before.segmentKeysUsed, 'no segment key is left');
  requireThat(
    addon.ioSockets() === 0 && addon.arenaStats().arenas === ARENAS,
    'no socket and no arena is left',
  );
}

function call(scene: Scene, [name, makers, keep]: Call): void {
  const { choices } = scene;
  const wrong = choices.byte();
  // One argument in some calls is a wrong one, and some calls have too few.
  const given = wrong % 16 === 1 ? makers.slice(1) : makers;
  const args = given.map((make, i) =>
    wrong % 4 === 2 && i === wrong % 5 ? wrongValue(choices) : make(scene),
  );
  let refused = false;
  const images = scene.arenas.map(({ bytes: whole }) => Buffer.from(whole));
  try {
    const result = nativeOf(name)(...args);
    keep?.(scene, result as never);
    // A reference more is given back where it was taken.
    if (name === 'keyRetain') scene.keys.push(args[0] as KeyHandle);
  } catch (error) {
    refuses(name, error);
    refused = true;
  }
  if (!refused) requireAllowed(name, args, scene.arenas);
  requireUntouched(scene, name, args, images);
}

function refuses(name: string, error: unknown): void {
  const code = error instanceof Error && 'code' in error ? String(error.code) : undefined;
  if (code === undefined || !CODES.has(code))
    throw new Error(`${name} fails without a code`, { cause: error });
}

/** Runs write to the blocks at `dst` alone. */
function requireUntouched({ arenas }: Scene, name: string, args: unknown[], images: Buffer[]): void {
  const ranges = writes(name, args);
  arenas.forEach(({ id, bytes: whole }, i) => {
    if (whole.length === 0) return; // freed
    for (const [at, length] of ranges) {
      const from = at - id * WORD;
      const inside = from >= 0 && from + length <= whole.length;
      if (inside) images[i].set(whole.subarray(from, from + length), from);
    }
    requireThat(images[i].equals(whole), `${name} writes where it should and nowhere else`);
  });
}

function arenasOfReads(): number {
  const arena = new Arena(BLOCK);
  unlessGone(() => addon.readRun(0 as SegmentKeyHandle, FILE, 0, 1, arena.ref(0), 0, 0, false));
  arena.free();
  return addon.arenaStats().arenas;
}

function unnamedFile(content: Uint8Array): number {
  const directory = mkdtempSync(join(tmpdir(), 'sealbd-fuzz-'));
  const fd = openSync(join(directory, 'file'), 'w+');
  writeSync(fd, content);
  rmSync(directory, { recursive: true });
  return fd;
}

function giveBack({ arenas, keys, segments, sockets, secrets }: Scene): void {
  for (const handle of segments) unlessGone(() => addon.segmentKeyRelease(handle));
  for (const handle of keys) unlessGone(() => addon.keyRelease(handle));
  for (const handle of sockets) addon.ioClose(handle);
  for (const buffer of secrets) addon.secretRelease(buffer);
  for (const arena of arenas) if (arena.bytes.length > 0) arena.free();
}

function unlessGone(release: () => void): void {
  try {
    release();
  } catch (error) {
    refuses('release', error);
  }
}
