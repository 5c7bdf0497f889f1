/** What real NBD clients must be able to do with a server, whichever it is. Needs a writable, empty export. */
import { createHash, randomBytes } from 'node:crypto';
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hasProgram, mustRun } from './programs.js';

export interface InteropServer {
  /** nbd://HOST:PORT/NAME */
  readonly uri: string;
  readonly sizeBytes: number;
  stop(): Promise<void>;
}

const MiB = 1024 * 1024;
// nbdsh is a script of Debian's python, which must come before any other.
const DEBIAN_FIRST = { PATH: `/usr/bin:/bin:${process.env.PATH ?? ''}` };

/** A test that says in its title why it was skipped. */
function needs(program: string): (title: string, body: () => Promise<void>) => void {
  if (hasProgram(program)) return (title, body) => it(`${program}: ${title}`, body);
  return (title) => it.skip(`${program} is not installed: ${title}`, () => undefined);
}

async function sha256(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

export function nbdInteropSuite(name: string, startServer: () => Promise<InteropServer>): void {
  describe(`real clients on ${name}`, () => {
    let server: InteropServer;
    let dir: string;
    const nbdsh = (...lines: string[]) =>
      mustRun(
        'nbdsh',
        ['-c', 'h.add_meta_context("base:allocation")', '-c', `h.connect_uri("${server.uri}")`].concat(
          lines.flatMap((line) => ['-c', line]),
        ),
        DEBIAN_FIRST,
      );

    beforeAll(async () => {
      dir = mkdtempSync(join(tmpdir(), 'nbd-interop-'));
      server = await startServer();
    });
    afterAll(async () => {
      await server.stop();
      rmSync(dir, { recursive: true, force: true });
    });

    describeInfo(() => server);
    describeCopies(
      () => server,
      () => dir,
    );
    describeQemu(
      () => server,
      () => dir,
    );

    needs('fio')('random writes verify, with a flush after every 64', async () => {
      const size = Math.min(16 * MiB, server.sizeBytes);
      for (const bs of ['4k', '3k', '128k']) {
        await mustRun('fio', [
          '--name=verify',
          '--ioengine=nbd',
          `--uri=${server.uri}`,
          '--rw=randwrite',
          `--bs=${bs}`,
          `--size=${size}`,
          '--iodepth=16',
          '--verify=crc32c',
          '--verify_fatal=1',
          '--verify_state_save=0',
          '--fsync=64',
        ]);
      }
    });

    needs('nbdsh')('a rude client gets errors and keeps its connection', async () => {
      await nbdsh(
        'h.set_strict_mode(0)',
        `size = ${server.sizeBytes}`,
        `
def errno_of(f):
    try:
        f()
        return 0
    except nbd.Error as e:
        return e.errno
import errno
assert errno_of(lambda: h.pread(512, size)) == "EINVAL"
assert errno_of(lambda: h.pwrite(bytes(512), size)) == "ENOSPC"
assert errno_of(lambda: h.zero(512, size)) == "ENOSPC"
assert errno_of(lambda: h.trim(512, size)) == "EINVAL"
assert errno_of(lambda: h.pread(512, 0, 0x8000)) == "EINVAL"
assert errno_of(lambda: h.pwrite(bytes(512), 0, 0x8000)) == "EINVAL"
assert errno_of(lambda: h.pwrite(bytes(33 * 1024 * 1024), 0)) == "EINVAL"
h.pwrite(b"still here", 1)
assert h.pread(10, 1) == b"still here"
`,
      );
    });

    needs('nbdsh')('unaligned writes, zeroes and trims leave their neighbours alone', async () => {
      await nbdsh(`
h.pwrite(bytes([7]) * 20000, 0)
h.pwrite(b"abc", 4095)
assert h.pread(5, 4094) == b"\\x07abc\\x07"
h.zero(3, 8191)
assert h.pread(5, 8190) == b"\\x07\\0\\0\\0\\x07"
h.trim(8192, 4097)
assert h.pread(1, 4097) == b"c"
assert h.pread(4096, 8192) == bytes(4096)
assert h.pread(20000 - 12288, 12288) == bytes([7]) * (20000 - 12288)
h.pwrite(b"fua", 5, nbd.CMD_FLAG_FUA)
h.flush()
`);
    });

    needs('nbdsh')('the allocation map follows writes and trims', async () => {
      await nbdsh(`
h.zero(1 << 20, 0)
h.pwrite(bytes([1]) * 8192, 65536)
got = []
def cb(context, offset, entries, err):
    got.extend(entries)
h.block_status(262144, 0, cb)
assert got == [65536, 3, 8192, 0, 262144 - 65536 - 8192, 3], got
h.trim(8192, 65536)
got = []
h.block_status(262144, 0, cb)
assert got == [262144, 3], got
`);
    });
  });
}

function describeInfo(server: () => InteropServer): void {
  needs('nbdinfo')('reads size, flags and block sizes', async () => {
    const info = JSON.parse(await mustRun('nbdinfo', ['--json', server().uri])) as {
      exports: Record<string, unknown>[];
    };
    expect(info.exports[0]).toMatchObject({
      'export-size': server().sizeBytes,
      is_read_only: false,
      can_multi_conn: true,
      can_fua: true,
      can_flush: true,
      can_trim: true,
      can_zero: true,
      can_fast_zero: true,
      can_cache: true,
      can_df: true,
      block_size_minimum: 1,
      block_size_preferred: 4096,
      block_size_maximum: 32 * MiB,
    });
  });

  needs('nbdinfo')('lists exports and maps', async () => {
    const { uri } = server();
    const root = uri.slice(0, uri.lastIndexOf('/') + 1);
    const list = await mustRun('nbdinfo', ['--list', '--json', root]);
    const name = uri.slice(uri.lastIndexOf('/') + 1);
    expect(list).toContain(`"export-name": "${name}"`);
    const map = JSON.parse(await mustRun('nbdinfo', ['--map', '--json', uri])) as { length: number }[];
    expect(map.reduce((sum, extent) => sum + extent.length, 0)).toBe(server().sizeBytes);
  });
}

function describeCopies(server: () => InteropServer, dir: () => string): void {
  needs('nbdcopy')('copies in and out over four connections, and the sums agree', async () => {
    const size = Math.min(32 * MiB, server().sizeBytes);
    const image = join(dir(), 'image');
    // A third of it is zeros, so that holes are copied too.
    writeFileSync(
      image,
      Buffer.concat([randomBytes(size / 2), Buffer.alloc(size / 4), randomBytes(size / 4)]),
    );
    await mustRun('nbdcopy', ['--connections=4', '--flush', image, server().uri]);
    const back = join(dir(), 'back');
    await mustRun('nbdcopy', ['--connections=4', server().uri, back]);
    await mustRun('truncate', ['-s', String(size), back]);
    expect(await sha256(back)).toBe(await sha256(image));
  });

  needs('nbdcopy')('copies with requests of 32 MiB and of 4 KiB', async () => {
    const size = Math.min(32 * MiB, server().sizeBytes);
    const image = join(dir(), 'image-2');
    const back = join(dir(), 'back-2');
    writeFileSync(image, randomBytes(size));
    for (const bytes of [32 * MiB, 4096]) {
      await mustRun('nbdcopy', [`--request-size=${bytes}`, '--requests=8', image, server().uri]);
      await mustRun('nbdcopy', [`--request-size=${bytes}`, '--requests=8', server().uri, back]);
      await mustRun('truncate', ['-s', String(size), back]);
      expect(await sha256(back)).toBe(await sha256(image));
    }
  });
}

function describeQemu(server: () => InteropServer, dir: () => string): void {
  needs('qemu-io')('writes with FUA, zeroes, discards, flushes and reads patterns', async () => {
    const commands = [
      'write -f -P 0x56 64k 4k',
      'write -z 128k 64k',
      'discard 256k 64k',
      'flush',
      'read -P 0x56 64k 4k',
      'read -P 0 128k 64k',
      'write -P 0x77 1000 3000',
      'read -P 0x77 1000 3000',
    ];
    const output = await mustRun('qemu-io', [
      '-f',
      'raw',
      server().uri,
      ...commands.flatMap((command) => ['-c', command]),
    ]);
    expect(output).not.toMatch(/Pattern verification failed|error/i);
  });

  needs('qemu-img')('converts to and from the export, and compares', async () => {
    const size = Math.min(24 * MiB, server().sizeBytes);
    const image = join(dir(), 'image.raw');
    const body = Buffer.alloc(server().sizeBytes);
    randomBytes(size / 2).copy(body, size / 2);
    writeFileSync(image, body);
    const { uri } = server();
    await mustRun('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', image, uri]);
    await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', image, uri]);
    const copy = join(dir(), 'copy.qcow2');
    await mustRun('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', uri, copy]);
    await mustRun('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', image, copy]);
  });
}
