import { describe, expect, it } from 'vitest';
import { callsOf, PART_NAMES, sharesOf } from '../../bench/nbd/samples.js';

const sample = (...frames: [symbol: string, object: string][]): string =>
  frames.map(([symbol, object]) => `\t    ffffffff81a3c0f1 ${symbol} (${object})`).join('\n');
const KERNEL = '[kernel.kallsyms]';

describe('shares of processor time', () => {
  it('gives each sample to the part whose function is on its stack, whatever the innermost one is', () => {
    const shares = sharesOf(
      [
        sample(['_copy_to_iter', KERNEL], ['tcp_recvmsg_locked', KERNEL], ['__libc_recv', '/lib/libc.so.6']),
        sample(['_copy_to_iter', KERNEL], ['filemap_read', KERNEL], ['vfs_read', KERNEL]),
        sample(['X86Kernel<Vector512>::gcm_seal', '/srv/build/Release/sealbd.node']),
        sample(['seal_slot', '/srv/build/Release/sealbd.node']),
        sample(['futex_wait', KERNEL], ['do_syscall_64', KERNEL]),
        sample(['do_syscall_64', KERNEL]),
        sample(['__memmove_avx512_unaligned_erms', '/lib/libc.so.6']),
        sample(['Builtins_LoadIC', '/usr/bin/node'], ['[unknown]', '[unknown]']),
      ].join('\n\n'),
    );
    const expected = {
      'socket: receive': 1,
      'file: read': 1,
      cipher: 1,
      'addon, without the cipher': 1,
      'wake-ups, threads and polling': 1,
      'other system calls': 1,
      'copies in user space': 1,
      program: 1,
    };
    for (const name of PART_NAMES)
      expect([name, shares.get(name)]).toEqual([name, ((expected as Record<string, number>)[name] ?? 0) / 8]);
  });

  it('does not take the outermost user functions for the kernel', () => {
    const shares = sharesOf(sample(['uv__io_poll', '/usr/bin/node'], ['epoll_wait', '/lib/libc.so.6']));
    expect(shares.get('program')).toBe(1);
  });

  it('refuses an output without samples', () => {
    expect(() => sharesOf('\n\n')).toThrow(/no samples/);
  });
});

describe('counts of system calls', () => {
  it('reads the summary of strace, with and without errors', () => {
    const counts = callsOf(
      [
        '% time     seconds  usecs/call     calls    errors syscall',
        '------ ----------- ----------- --------- --------- ----------------',
        ' 88.84    6.688104         631     10587       786 futex',
        '  3.17    0.238984         193      1236           pwrite64',
        '------ ----------- ----------- --------- --------- ----------------',
        '100.00    6.927088         585     11823       786 total',
      ].join('\n'),
    );
    expect([...counts]).toEqual([
      ['futex', 10587],
      ['pwrite64', 1236],
    ]);
    expect(() => callsOf('')).toThrow(/no system call/);
  });
});
