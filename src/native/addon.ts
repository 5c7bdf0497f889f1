/**
 * The typed face of the addon. Every native symbol that TypeScript uses is declared here and nowhere else.
 *
 * - A `ref` names a byte of an arena: arena id * 2^32 + offset. Bounds are checked on every call.
 * - A `KeyHandle` names a key slot: locked, guarded memory that holds one 256-bit key. Handles are numbers that
 *   carry a generation; a stale one is an error, never another key. Slots are process-wide.
 * - A `SegmentKeyHandle` names the expanded key of one segment (round keys, GHASH tables), in the same memory.
 * - Status results of the run functions: `RUN_OK`, `RUN_WOULD_BLOCK`, `RUN_REVOKED`, >= 0: the index of the first
 *   block that did not authenticate, is not wholly in the file or could not be read, or a value <= `RUN_ERRNO_BASE`:
 *   why the very first block could not be read (RUN_ERRNO_BASE - errno).
 */

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

declare const keyHandleBrand: unique symbol;
declare const segmentKeyHandleBrand: unique symbol;
export type KeyHandle = number & { readonly [keyHandleBrand]: true };
export type SegmentKeyHandle = number & { readonly [segmentKeyHandleBrand]: true };

export const RUN_OK = -1;
export const RUN_WOULD_BLOCK = -2;
export const RUN_REVOKED = -3;
export const RUN_ERRNO_BASE = -1000;

/** Masks of socket events. */
export const IO_READABLE = 1;
export const IO_WRITABLE = 2;
/** The peer is gone or the socket failed; a read gives what is left, then the end or the error. */
export const IO_HANGUP = 4;

/** Wire values of the suites (docs/FORMAT.md). */
export const SUITE_NONE = 0;
export const SUITE_CTR = 1;
export const SUITE_GCM = 2;

export interface KernelInfo {
  readonly name: string;
  readonly supported: boolean;
}

/** Raw primitives on JavaScript buffers, for test vectors and benchmarks. `kernel` is a name of `cpuKernels`. */
export interface Primitives {
  /** SP 800-38A CTR; the 128-bit counter block is incremented big-endian. dst may equal src. */
  ctr(kernel: string, key: Uint8Array, counterBlock: Uint8Array, src: Uint8Array, dst: Uint8Array): void;
  /** SP 800-38D seal with a 96-bit IV; returns the 128-bit tag. */
  gcmSeal(
    kernel: string,
    key: Uint8Array,
    iv: Uint8Array,
    aad: Uint8Array,
    src: Uint8Array,
    dst: Uint8Array,
  ): Buffer;
  /** True and plaintext in dst, or false and dst all zeros. */
  gcmOpen(
    kernel: string,
    key: Uint8Array,
    iv: Uint8Array,
    aad: Uint8Array,
    tag: Uint8Array,
    src: Uint8Array,
    dst: Uint8Array,
  ): boolean;
  /** SP 800-38B. */
  cmac(kernel: string, key: Uint8Array, message: Uint8Array): Buffer;
  /** SP 800-108 counter mode, CMAC-AES256, 32-bit counter before the fixed input. */
  kdf(kernel: string, key: Uint8Array, fixedInput: Uint8Array, lengthBits: number): Buffer;
}

export interface SecureMemoryStatus {
  /** False once memory is in use that mlock was refused for. It can become so whenever the tables of keys grow. */
  readonly locked: boolean;
  readonly pagesBytes: number;
  readonly slotsUsed: number;
  readonly segmentKeysUsed: number;
}

export interface Addon {
  // Kernels.
  cpuKernels(): KernelInfo[];
  /** The kernel in use: the best supported one, or the one that SEALBD_CPU names. */
  cpuSelected(): string;
  readonly primitives: Primitives;

  // Arenas.
  arenaCreate(sizeBytes: number): { id: number; buffer: ArrayBuffer };
  arenaFree(id: number): void;
  arenaStats(): { arenas: number; bytes: number };

  // Keys. Errors are thrown as Error with `code`: 'KEY_REVOKED', 'KEY_STALE', 'KEY_MEMORY', 'KEY_AUTH', 'EINVAL'.
  /**
   * With true, memory for keys that cannot be locked is not used: what needs more of it fails with KEY_MEMORY. For the
   * whole process, from now on; it starts out as false.
   */
  secureMemoryRequireLocked(required: boolean): void;
  /** Maps the first memory of both tables where that has not happened yet; KEY_MEMORY where it cannot be had. */
  secureMemory(): SecureMemoryStatus;
  /**
   * Zeroed memory for a secret on its way, such as slots have: locked, guarded, out of core dumps and of children. Up to
   * 16 MiB. KEY_MEMORY where it can't be had. Wiped and given back once nothing refers to it; secretRelease is sooner.
   */
  secretCreate(sizeBytes: number): ArrayBuffer;
  /** Wipes and detaches: views of it are empty from then on. EINVAL where it is not of secretCreate, nothing the second time. */
  secretRelease(buffer: ArrayBufferLike): void;
  /** 256 bits from getrandom(2). */
  keyGenerate(): KeyHandle;
  /**
   * Moves 32 bytes into a slot and wipes the source. A secret source must have been made over an ArrayBuffer
   * (secret-buffer.ts; what node:crypto returns is): of a small `new Uint8Array(n)` or `Buffer.alloc(n)` the engine
   * keeps the bytes inside its heap, and leaves a copy there. Nothing here can see that before it is too late.
   */
  keyImport(bytes: Uint8Array): KeyHandle;
  /** The same for base64 text (44 characters at `start`); the text is overwritten with '*'. */
  keyImportBase64(text: Uint8Array, start: number): KeyHandle;
  /** Writes the key as 44 base64 characters to `text` at `start`. For the local: keyring file, and to be wrapped by a KMS. */
  keyExportBase64(key: KeyHandle, text: Uint8Array, start: number): void;
  /**
   * Overwrites the 64 KiB of stack below the caller, where Node leaves what it read from a TLS connection. For a later
   * turn of the event loop than that of the read.
   */
  scrubStack(): void;
  keyRetain(key: KeyHandle): void;
  /** The last release wipes the slot, and revokes and wipes every segment key derived from it, as keyRevoke does. */
  keyRelease(key: KeyHandle): void;
  /** Wipes the slot and every segment key derived from it, for all threads, whoever still holds it. Jobs under
   *  way end with RUN_REVOKED. Returns when the bytes are gone. */
  keyRevoke(key: KeyHandle): void;
  keyIsRevoked(key: KeyHandle): boolean;
  keyEquals(a: KeyHandle, b: KeyHandle): boolean;
  /** CMAC under KDF(key, label, context), 16 bytes. */
  keyMac(key: KeyHandle, label: string, context: Uint8Array, data: Uint8Array): Buffer;
  /** The same compared in constant time with the 16 bytes of `mac`. */
  keyMacVerify(
    key: KeyHandle,
    label: string,
    context: Uint8Array,
    data: Uint8Array,
    mac: Uint8Array,
  ): boolean;
  /** AES-256-GCM of one key under KDF(kek, "sealbd/v1/wrap", ""): nonce (12) || ciphertext (32) || tag (16). */
  keyWrap(kek: KeyHandle, key: KeyHandle, aad: Uint8Array): Buffer;
  /** Throws KEY_AUTH where the blob does not authenticate. */
  keyUnwrap(kek: KeyHandle, blob: Uint8Array, aad: Uint8Array): KeyHandle;

  // Segment keys and runs of slots. `key` of a SUITE_NONE segment is null.
  segmentKeyDerive(key: KeyHandle | null, suite: number, context: Uint8Array): SegmentKeyHandle;
  segmentKeyRelease(segmentKey: SegmentKeyHandle): void;
  /**
   * Seals `blocks` plain blocks at `src` (stride 4096) into slots at `dst` (stride 4128) for positions
   * `position`, `position`+1, ...; block i gets lba + i and sequence + i; `durable` is the last sequence known
   * durable, or -1 for no claim. `src` and `dst` must not overlap. Returns RUN_OK or RUN_REVOKED.
   */
  sealRun(
    segmentKey: SegmentKeyHandle,
    dst: number,
    src: number,
    blocks: number,
    position: number,
    lba: number,
    sequence: number,
    durable: number,
    kind: number,
  ): number;
  /** Opens slots at `src` into blocks at `dst`; slot i must hold a data block of lba + i. Blocks that fail are zeroed. */
  openRun(
    segmentKey: SegmentKeyHandle,
    dst: number,
    src: number,
    blocks: number,
    position: number,
    lba: number,
  ): number;
  /**
   * The same from a file: reads `blocks` slots at `fileOffset` of `fd` into memory of the addon, opens them into
   * `dst`. Slots before one that cannot be read are opened all the same. With `noWait`, RUN_WOULD_BLOCK where
   * the bytes are not all in the page cache (RWF_NOWAIT), or where the file ends: only a read that may wait tells
   * these apart.
   */
  readRun(
    segmentKey: SegmentKeyHandle,
    fd: number,
    fileOffset: number,
    blocks: number,
    dst: number,
    position: number,
    lba: number,
    noWait: boolean,
  ): number;
  /**
   * `readRun` for each of the runs [first, count), in order. A run is seven numbers of `runs`: segmentKey, fd, fileOffset,
   * blocks, dst, position, lba. Returns `count`, or the index of the first run whose result is not RUN_OK, with that
   * result in `outcome[0]`; the runs after it are untouched.
   */
  readRuns(runs: Float64Array, first: number, count: number, noWait: boolean, outcome: Float64Array): number;
  /**
   * Checks `blocks` slots at `src` one by one, whatever lba and sequence they claim, decrypting into `dst`
   * (stride 4096). `valid[i]` becomes 1 or 0. Returns RUN_OK or RUN_REVOKED.
   */
  scanRun(
    segmentKey: SegmentKeyHandle,
    dst: number,
    src: number,
    blocks: number,
    position: number,
    valid: Uint8Array,
  ): number;

  // Sockets (native/io/poller.h): non-blocking, watched by one epoll set on the environment's event loop. A
  // handle carries a generation and is never given out twice. Every function returns a value >= 0, or -errno.
  /**
   * `onReady(count)` is called once for each wake-up; `events` then holds `count` pairs of handle and IO_* mask. Where it
   * returns true the sockets are looked at again for some microseconds before the loop goes on.
   */
  ioStart(events: Float64Array, onReady: (count: number) => boolean | undefined): number;
  /** `address` is numeric, IPv4 or IPv6. Port 0 takes a free one; `ioName` tells which. */
  ioListenTcp(address: string, port: number, backlog: number): number;
  /** The file gets permission bits `mode`, replaces one that nobody listens on, and goes away with the handle. */
  ioListenUnix(path: string, mode: number, backlog: number): number;
  /** A listening socket that was handed over as a descriptor, which belongs to the handle from then on. */
  ioListenOn(fd: number): number;
  ioAccept(listener: number, bufferBytes: number): number;
  /** 'HOST:PORT', '[HOST]:PORT' or 'unix:PATH' of this end (0) or the peer (1); '' where unknown. */
  ioName(socket: number, peer: 0 | 1): string;
  /** Receives into an arena: bytes, 0 at the end of the stream. */
  ioReceive(socket: number, ref: number, length: number): number;
  /** One sendmsg of `count` pairs of ref and length: bytes taken, perhaps fewer than given. */
  ioSend(socket: number, pieces: Float64Array, count: number): number;
  /** Which of IO_READABLE and IO_WRITABLE to report (level-triggered). With 0 nothing is, a hang-up included. */
  ioInterest(socket: number, mask: number): number;
  /** Closes the sending side. */
  ioFinish(socket: number): number;
  ioClose(socket: number): number;
  /** Forgets the handle and gives its descriptor, still open, to the caller. */
  ioRelease(socket: number): number;
  /** Sends one datagram to a unix socket; '@' begins a path of the abstract namespace. */
  ioNotify(path: string, text: string): number;
  /** The user id behind the other end of a unix socket, as it connected. Takes a descriptor, not a handle. */
  ioPeerUid(fd: number): number;
  /** Open handles of this environment, listeners included. */
  ioSockets(): number;

  // Small system things.
  crc32c(bytes: Uint8Array, seed: number): number;
  /** Zeroes. The source of a secret must be such as keyImport asks for. */
  wipe(bytes: Uint8Array): void;
  randomFill(bytes: Uint8Array): void;
  /** flock(2), exclusive, non-blocking: true if taken. */
  fileLock(fd: number): boolean;
  /** fallocate(2) of [0, bytes) on a thread of its own; rejects with an Error whose code is the errno name. */
  fileAllocate(fd: number, bytes: number): Promise<void>;
  /**
   * fdatasync(2), then posix_fadvise(2) with POSIX_FADV_DONTNEED, on a thread of its own: later reads are of what the medium
   * holds. Rejects like fileAllocate.
   */
  fileReload(fd: number): Promise<void>;
  /** Raises RLIMIT_NOFILE to its hard limit, RLIMIT_MEMLOCK likewise; returns the limits in force. To be called
   *  before the first key exists: memory that could not be locked then is not locked later. */
  processLimits(): { openFiles: number; lockedBytes: number };
  /** Gives the kernel what malloc holds and nobody uses, which glibc keeps otherwise; some milliseconds. */
  heapTrim(): void;
}

/** With SEALBD_TESTING=1, `SEALBD_ADDON` names another build of the addon: a sanitized one, or one elsewhere. */
function load(): Addon {
  const require = createRequire(import.meta.url);
  const { SEALBD_TESTING, SEALBD_ADDON } = process.env;
  if (SEALBD_TESTING === '1' && SEALBD_ADDON) return require(SEALBD_ADDON) as Addon;
  for (const path of ['../../build/Release/sealbd.node']) {
    const file = fileURLToPath(new URL(path, import.meta.url));
    if (existsSync(file)) return require(file) as Addon;
  }
  const binding = require('pkg-prebuilds') as (dir: string, options: object) => Addon;
  return binding(
    fileURLToPath(new URL('../..', import.meta.url)),
    require('../../binding-options.cjs') as object,
  );
}

export const addon: Addon = load();
