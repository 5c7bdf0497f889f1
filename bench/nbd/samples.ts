/** What samples of a process say about where its processor time goes. */
/** Frames of one sample, the innermost first, each a symbol and the object that it is in. */
export type Stack = readonly { readonly symbol: string; readonly object: string }[];

const KERNEL = '[kernel.kallsyms]';

interface Part {
  readonly name: string;
  /** Neither can be done without: copies, the cipher, and what the kernel does for them. */
  readonly needed: boolean;
  holds(stack: Stack): boolean;
}

const inKernel = ([top]: Stack): boolean => top.object.startsWith('[') && top.object !== '[vdso]';
const calls = (stack: Stack, pattern: RegExp): boolean =>
  stack.some(({ symbol, object }) => object === KERNEL && pattern.test(symbol));
const kernelIn = (pattern: RegExp) => (stack: Stack) => inKernel(stack) && calls(stack, pattern);

/** The first that holds a sample has it. */
const PARTS: readonly Part[] = [
  { name: 'socket: receive', needed: true, holds: kernelIn(/^(tcp_recvmsg|inet_recvmsg|sock_recvmsg)/) },
  {
    name: 'socket: send',
    needed: true,
    holds: kernelIn(/^(tcp_sendmsg|inet_sendmsg|sock_sendmsg|sock_write_iter)/),
  },
  {
    name: 'flush',
    needed: true,
    holds: kernelIn(/^(do_fsync|ext4_sync_file|vfs_fsync|filemap_write_and_wait)/),
  },
  {
    name: 'file: write',
    needed: true,
    holds: kernelIn(/^(vfs_write|do_pwritev|vfs_writev|generic_perform_write)/),
  },
  {
    name: 'file: read',
    needed: true,
    holds: kernelIn(/^(vfs_read|do_preadv|vfs_readv|filemap_read|do_readv)/),
  },
  {
    name: 'cipher',
    needed: true,
    holds: ([top]) => /sealbd\.node$/.test(top.object) && /Kernel|gcm_|ctr_|ghash|aes/i.test(top.symbol),
  },
  { name: 'addon, without the cipher', needed: false, holds: ([top]) => /sealbd\.node$/.test(top.object) },
  {
    name: 'wake-ups, threads and polling',
    needed: false,
    holds: kernelIn(/futex|epoll|schedule|eventfd|poll_/),
  },
  { name: 'other system calls', needed: false, holds: (stack) => inKernel(stack) },
  {
    name: 'copies in user space',
    needed: false,
    holds: ([top]) => /^__mem(move|cpy|set)/.test(top.symbol),
  },
  // JavaScript, its runtime and libuv; for a server in C, its own code and the C library.
  { name: 'program', needed: false, holds: () => true },
];

export const PART_NAMES: readonly string[] = PARTS.map(({ name }) => name);
export const NEEDED_NAMES: readonly string[] = PARTS.filter(({ needed }) => needed).map(({ name }) => name);

/** The share of each part in the samples that `perf script -F ip,sym,dso` printed; they add up to 1. */
export function sharesOf(script: string): ReadonlyMap<string, number> {
  const counts = new Map(PART_NAMES.map((name) => [name, 0]));
  const stacks = script
    .split(/\n\s*\n/)
    .map(stackOf)
    .filter((stack) => stack.length > 0);
  if (stacks.length === 0) throw new Error('perf took no samples');
  for (const stack of stacks) {
    const { name } = PARTS.find((part) => part.holds(stack))!;
    counts.set(name, counts.get(name)! + 1);
  }
  return new Map([...counts].map(([name, count]) => [name, count / stacks.length]));
}

function stackOf(text: string): Stack {
  return text.split('\n').flatMap((line) => {
    // "ffffffff81a3c0f1 tcp_recvmsg_locked+0x11 ([kernel.kallsyms])"
    const match = /^\s+[0-9a-f]+ (.*) \((.*)\)$/.exec(line);
    return match === null ? [] : [{ symbol: match[1], object: match[2] }];
  });
}

/** Calls of each system call in the summary of `strace -c`. */
export function callsOf(summary: string): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const line of summary.split('\n')) {
    // "% time, seconds, usecs/call, calls, [errors,] syscall"
    const match = /^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$/.exec(line);
    if (match !== null && match[2] !== 'total') counts.set(match[2], Number(match[1]));
  }
  if (counts.size === 0) throw new Error('strace saw no system call');
  return counts;
}
