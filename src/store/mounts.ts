/**
 * Which file system a path leads to, told without touching that one: it may be a network mount that answers no more. The kernel's
 * table says where file systems are mounted; on the way there only links are read, each on a file system that is passed.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { errnoOf } from '../base/errors.js';

/** Device, as `major:minor`, by mount point. */
export type Mounts = ReadonlyMap<string, string>;

/** As the kernel's. */
const LINKS_MAX = 40;
const NO_DEVICE = '';

/** Columns of proc_pid_mountinfo(5). What is mounted last on a point is what is seen there. Empty where there is no /proc. */
export function readMounts(file = '/proc/self/mountinfo'): Mounts {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return new Map();
  }
  const lines = text.split('\n').filter((line) => line !== '');
  return new Map(
    lines.map((line) => {
      const [, , device, , point] = line.split(' ');
      return [
        point.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))),
        device,
      ];
    }),
  );
}

/**
 * The device that the absolute `path` is on, or would be. `linkAt` reads a link that is on the device given, and resolves to undefined where there is none.
 */
export async function deviceOf(
  path: string,
  mounts: Mounts,
  linkAt: (device: string, path: string) => Promise<string | undefined>,
): Promise<string> {
  const root = mounts.get('/') ?? NO_DEVICE;
  let [at, device, links] = ['/', root, 0];
  let ahead = partsOf(path);
  while (ahead.length > 0) {
    const next = join(at, ahead[0]);
    ahead = ahead.slice(1);
    const mounted = mounts.get(next);
    const target = mounted === undefined && links < LINKS_MAX ? await linkAt(device, next) : undefined;
    if (target === undefined) {
      at = next;
      device = mounted ?? device;
    } else {
      links += 1;
      ahead = [...partsOf(resolve(at, target)), ...ahead];
      [at, device] = ['/', root];
    }
  }
  return device;
}

function partsOf(path: string): string[] {
  return resolve(path)
    .split('/')
    .slice(1)
    .filter((part) => part !== '');
}
