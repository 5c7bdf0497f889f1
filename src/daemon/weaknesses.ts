/** What weakens the protection of memory on this machine. sealbd runs all the same, so this only says it. */
import { readFileSync } from 'node:fs';
import type { Logger } from '../base/log.js';
import { formatSize } from '../base/units.js';

/** Room for the table of keys, some thousand segment keys, and requests to a key service. */
const LOCKED_BYTES_WANTED = 8 * 2 ** 20;

export interface MachineFacts {
  /** Of RLIMIT_MEMLOCK, in force. */
  readonly lockedBytes: number;
  /** Text of /proc/swaps and /proc/self/limits; undefined where it cannot be read. */
  readonly swaps: string | undefined;
  readonly limits: string | undefined;
  readonly tls: boolean;
}

export function machineFacts(lockedBytes: number, tls: boolean): MachineFacts {
  return { lockedBytes, swaps: read('/proc/swaps'), limits: read('/proc/self/limits'), tls };
}

export function warnOfWeaknesses({ lockedBytes, swaps, limits, tls }: MachineFacts, log: Logger): void {
  if (lockedBytes < LOCKED_BYTES_WANTED) {
    const sizes = {
      weakness: 'memlock',
      locked: formatSize(lockedBytes),
      wanted: formatSize(LOCKED_BYTES_WANTED),
    };
    log.warn(
      sizes,
      'little memory can be locked: volumes with many segments may run out of room for their keys',
    );
  }
  // The first line is the head of a table.
  const areas = swaps?.trim().split('\n').slice(1) ?? [];
  if (areas.length > 0) {
    const plain = areas.map((line) => line.split(/\s+/)[0]);
    log.warn(
      { weakness: 'swap', areas: plain },
      'swap is in use: data of requests (no keys) can reach it; encrypt it',
    );
  }
  const [, core] = /^Max core file size\s+(\S+)/m.exec(limits ?? '') ?? [];
  if (tls && core !== undefined && core !== '0') {
    log.warn(
      { weakness: 'core', limit: core },
      'core dumps are on: keys and data of TLS would be in one (LimitCORE=0)',
    );
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
